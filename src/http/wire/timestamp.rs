//! Moments on the wire: RFC 3339, UTC, milliseconds.
//!
//! Owns: the text form. Never: reads a clock. Invariant: printing and parsing keep the millisecond.

use crate::domain::ids::UnixMs;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment such as `2026-03-01T12:00:00.250Z`; any offset is read, UTC is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub UnixMs);

impl From<UnixMs> for Timestamp {
    fn from(at: UnixMs) -> Self {
        Timestamp(at)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339().ok_or(fmt::Error)?)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = time::error::Parse;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = OffsetDateTime::parse(text, &Rfc3339)?;
        let ms = at.unix_timestamp() * 1000 + i64::from(at.millisecond());
        Ok(Timestamp(UnixMs(ms)))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A clock so far off that the year has five digits is an error, not a panic.
        let text = self.0.to_rfc3339();
        let text = text.ok_or_else(|| serde::ser::Error::custom("moment out of range"))?;
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| D::Error::custom("expected an RFC 3339 date and time such as 2026-03-01T12:00:00Z"))
    }
}

impl utoipa::PartialSchema for Timestamp {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into()
    }
}

impl utoipa::ToSchema for Timestamp {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_their_millisecond_and_print_as_utc() {
        for ms in [0, 1, 1_700_000_000_250, -1, 4_102_444_800_999] {
            let at = Timestamp(UnixMs(ms));
            assert_eq!(at.to_string().parse::<Timestamp>().unwrap(), at, "{at}");
        }
        assert_eq!(
            Timestamp(UnixMs(1_700_000_000_250)).to_string(),
            "2023-11-14T22:13:20.250Z"
        );
        let shifted: Timestamp = serde_json::from_str("\"2023-11-14T23:13:20.25+01:00\"").unwrap();
        assert_eq!(shifted.0, UnixMs(1_700_000_000_250));
        assert!(serde_json::from_str::<Timestamp>("\"yesterday\"").is_err());
        assert!(serde_json::to_string(&Timestamp(UnixMs(i64::MAX))).is_err());
    }
}
