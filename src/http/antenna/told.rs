//! What one posted result says: a failure, or a success with what it found.
//!
//! Owns: the one way from an item to a report. Never: changes a result: it is kept as it came. Invariant: an item that cannot be kept is
//! unusable by itself, and whatever else is odd about it only lowers its counters.

use super::lenient::Text;
use super::object;
use super::wire::{AntennaResult, given};
use crate::coordinator::api::{Report, ReportedResult};
use crate::http::error::{ApiError, ApiResult};
use crate::http::results::{ItemBounds, ItemRead, bounded_error, kept, place_of};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// An item, and the image that it speaks of, as far as it says so.
pub(super) struct Told {
    pub(super) result: ReportedResult,
    pub(super) image: Option<String>,
}

/// Reads one item; `place` is its place in the request. Errors: a member that must be there is not.
pub(super) fn told(item: AntennaResult, place: usize, bounds: ItemBounds) -> ApiResult<Told> {
    let part = |member: &str| format!("results[{place}].{member}");
    let lease = subject(item.reply_subject).ok_or_else(|| missing(part("reply_subject")))?;
    let result = item.result.ok_or_else(|| missing(part("result")))?;
    let (report, image) = report(result.get(), bounds);
    let report = match report {
        Report::Succeeded { counters, .. } => kept(result).map_or(Report::Unusable, |result| Report::Succeeded {
            result: Some(result.into()),
            counters,
        }),
        other => other,
    };
    Ok(Told {
        result: ReportedResult { lease, report },
        image,
    })
}

/// [`AntennaResult`], borrowed: a large result is not copied to be read.
#[derive(Deserialize)]
struct ItemText<'a> {
    #[serde(default, deserialize_with = "given")]
    reply_subject: Option<Option<Text>>,
    #[serde(default, borrow, deserialize_with = "given_text")]
    result: Option<&'a RawValue>,
}

fn given_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads one item of a long post; what it says beside its report is its image.
pub(super) fn read_item(text: &str, bounds: ItemBounds) -> ApiResult<ItemRead<Option<String>>> {
    let item: ItemText<'_> = object(text.as_bytes(), "reply_subject")?;
    let lease = subject(item.reply_subject).ok_or_else(|| missing("reply_subject"))?;
    let result = item.result.ok_or_else(|| missing("result"))?;
    let (report, image) = report(result.get(), bounds);
    let succeeded = matches!(report, Report::Succeeded { .. });
    Ok(ItemRead {
        lease,
        report,
        result: succeeded.then(|| place_of(result.get(), text)),
        extra: image,
    })
}

fn missing(member: impl Into<String>) -> ApiError {
    ApiError::invalid(member, "present")
}

/// Null is as good as a text that cannot be read; none where there is neither.
fn subject(given: Option<Option<Text>>) -> Option<String> {
    given.map(|given| given.unwrap_or_default().0)
}

/// What a result says, itself left out, and which image it speaks of.
fn report(result: &str, bounds: ItemBounds) -> (Report, Option<String>) {
    let Some(found) = Found::of(result) else {
        return (Report::Unusable, None);
    };
    let counters = found.counters();
    let image = found.image_id.or(found.first_source);
    let report = match found.error {
        Some(error) => Report::Failed {
            error: bounded_error(error, bounds.error_bytes),
            retryable: true,
        },
        None => Report::Succeeded { result: None, counters },
    };
    (report, image)
}

/// What matters of a result. Everything else in it is passed over, so that its size costs one pass and no memory.
#[derive(Debug, Default, PartialEq)]
struct Found {
    error: Option<String>,
    image_id: Option<String>,
    first_source: Option<String>,
    captures: i64,
    detections: i64,
    classifications: i64,
}

impl Found {
    /// None if it is no object.
    fn of(text: &str) -> Option<Found> {
        serde_json::from_str(text).ok()
    }

    fn counters(&self) -> Vec<(String, i64)> {
        let counted = [
            ("captures", self.captures),
            ("detections", self.detections),
            ("classifications", self.classifications),
        ];
        counted.map(|(name, count)| (name.to_owned(), count)).into()
    }
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "error" => found.error = map.next_value::<Loose>()?.into_error(),
                "image_id" => found.image_id = map.next_value::<Loose>()?.into_id(),
                "source_images" => {
                    let list = map.next_value::<List>()?;
                    (found.captures, found.first_source) = (list.length, list.first_id);
                }
                "detections" => {
                    let list = map.next_value::<List>()?;
                    (found.detections, found.classifications) = (list.length, list.inner);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// A small value of any kind.
struct Loose(Box<RawValue>);

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Loose)
    }
}

impl Loose {
    /// The error; null is none.
    fn into_error(self) -> Option<String> {
        match self.0.get() {
            "null" => None,
            text => Some(serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())),
        }
    }

    fn into_id(self) -> Option<String> {
        serde_json::from_str::<super::lenient::Text>(self.0.get())
            .ok()
            .map(|text| text.0)
    }
}

/// How long a list is, the first `id` in it, and how long the `classifications` in it are together; nothing of what is no list.
#[derive(Default)]
struct List {
    length: i64,
    first_id: Option<String>,
    inner: i64,
}

/// The same of one element.
#[derive(Default)]
struct Element {
    id: Option<String>,
    classifications: i64,
}

/// Gives a visitor that takes lists, or objects, the same silence for everything else.
macro_rules! silent {
    ($target:ident, $visitor:ident { $($own:item)* }) => {
        impl<'de> Deserialize<'de> for $target {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($visitor)
            }
        }

        struct $visitor;

        impl<'de> Visitor<'de> for $visitor {
            type Value = $target;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_bool<E>(self, _: bool) -> Result<$target, E> {
                Ok($target::default())
            }

            fn visit_i64<E>(self, _: i64) -> Result<$target, E> {
                Ok($target::default())
            }

            fn visit_u64<E>(self, _: u64) -> Result<$target, E> {
                Ok($target::default())
            }

            fn visit_f64<E>(self, _: f64) -> Result<$target, E> {
                Ok($target::default())
            }

            fn visit_str<E>(self, _: &str) -> Result<$target, E> {
                Ok($target::default())
            }

            fn visit_unit<E>(self) -> Result<$target, E> {
                Ok($target::default())
            }

            $($own)*
        }
    };
}

silent!(List, Lists {
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<List, A::Error> {
        let mut list = List::default();
        while let Some(element) = elements.next_element::<Element>()? {
            if list.length == 0 {
                list.first_id = element.id;
            }
            list.length += 1;
            list.inner += element.classifications;
        }
        Ok(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(List::default())
    }
});

silent!(Element, Elements {
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Element, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Element::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element, A::Error> {
        let mut element = Element::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "id" => element.id = map.next_value::<Loose>()?.into_id(),
                "classifications" => element.classifications = map.next_value::<Length>()?.0,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(element)
    }
});

/// How long a list is.
#[derive(Default)]
struct Length(i64);

silent!(Length, Lengths {
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Length, A::Error> {
        let mut length = 0;
        while elements.next_element::<IgnoredAny>()?.is_some() {
            length += 1;
        }
        Ok(Length(length))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Length, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Length(0))
    }
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rows::Kept;

    fn read(text: &str) -> ApiResult<Told> {
        told(serde_json::from_str(text).unwrap(), 3, ItemBounds::for_tests())
    }

    fn counters(result: &str) -> Vec<i64> {
        match read(&format!(r#"{{"reply_subject":"s","result":{result}}}"#))
            .unwrap()
            .result
            .report
        {
            Report::Succeeded { counters, result: kept } => {
                assert_eq!(kept.as_ref().and_then(Kept::text), Some(result), "kept verbatim");
                counters.into_iter().map(|(_, count)| count).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_success_is_counted_and_kept_as_it_came() {
        let full = r#"{ "pipeline":"moths", "source_images":[{"id":"7","url":"u"}],
            "detections":[{"classifications":[{"scores":[0.1, 1.0]},{}],"bbox":{"x1":1.50}},{"classifications":[]},{}], "at":"2025-01-01T00:00:00" }"#;
        assert_eq!(counters(full), [1, 3, 2]);
        assert_eq!(counters("{}"), [0, 0, 0]);
        let odd =
            r#"{"source_images":{"a":1},"detections":[1,"x",null,[2],{"classifications":"none"}],"detections ":1}"#;
        assert_eq!(counters(odd), [0, 5, 0]);
        assert_eq!(
            counters(r#"{"error":null,"source_images":null,"detections":7.5}"#),
            [0, 0, 0]
        );
    }

    #[test]
    fn fm33_an_error_is_a_failure_with_or_without_its_image() {
        let failed = |result: &str| {
            let told = read(&format!(r#"{{"reply_subject":"s","result":{result}}}"#)).unwrap();
            match told.result.report {
                Report::Failed { error, retryable } => (error.into_string(), retryable, told.image),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            failed(r#"{"error":"no \"image\""}"#),
            (r#"no "image""#.into(), true, None)
        );
        assert_eq!(
            failed(r#"{"error":"x","image_id":9}"#),
            ("x".into(), true, Some("9".into()))
        );
        assert_eq!(
            failed(r#"{"error":{"code":4},"image_id":null}"#),
            (r#"{"code":4}"#.into(), true, None)
        );
        assert_eq!(failed(r#"{"error":""}"#).0, "");
    }

    #[test]
    fn the_image_is_named_by_the_result_or_by_its_first_source() {
        let image = |result: &str| {
            read(&format!(r#"{{"reply_subject":null,"result":{result}}}"#))
                .unwrap()
                .image
        };
        assert_eq!(
            image(r#"{"source_images":[{"url":"u","id":12},{"id":13}]}"#).as_deref(),
            Some("12")
        );
        assert_eq!(
            image(r#"{"image_id":"5","source_images":[{"id":12}]}"#).as_deref(),
            Some("5")
        );
        assert_eq!(image(r#"{"source_images":[]}"#), None);
    }

    #[test]
    fn fm35_what_cannot_be_kept_is_unusable_by_itself_and_what_is_missing_is_named() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        for result in ["[1]", "7", "\"text\"", "null", r#"{"a":"\ud800"}"#, &deep] {
            let told = read(&format!(r#"{{"reply_subject":"s","result":{result}}}"#)).unwrap();
            assert_eq!(told.result.report, Report::Unusable, "{result}");
        }
        for (text, field) in [
            (r#"{"result":{}}"#, "results[3].reply_subject"),
            (r#"{"reply_subject":"s"}"#, "results[3].result"),
        ] {
            let error = read(text).err().expect("a member is missing");
            assert_eq!(error.problem().field.as_deref(), Some(field));
        }
        assert_eq!(
            read(r#"{"reply_subject":17,"result":{},"more":1}"#)
                .unwrap()
                .result
                .lease,
            "17"
        );
    }

    #[test]
    fn fm36_an_item_of_a_long_post_is_read_as_one_of_a_short_post() {
        for text in [
            r#"{"reply_subject":"s","result":{"source_images":[{"id":7}],"detections":[{"classifications":[{},{}]}]}}"#,
            r#"{"result":{"error":"too dark","image_id":"9"},"reply_subject":12,"more":[1]}"#,
            r#"{"reply_subject":null,"result":{"image_id":3}}"#,
            r#"{"reply_subject":"s","result":[1]}"#,
        ] {
            let (short, long) = (read(text).unwrap(), read_item(text, ItemBounds::for_tests()).unwrap());
            assert_eq!(
                (&long.lease, &long.extra),
                (&short.result.lease, &short.image),
                "{text}"
            );
            let without_result = match short.result.report {
                Report::Succeeded { result, counters } => {
                    let place = long.result.clone().expect("a success has a result");
                    assert_eq!(result.as_ref().and_then(Kept::text), Some(&text[place]));
                    Report::Succeeded { result: None, counters }
                }
                other => other,
            };
            assert_eq!(long.report, without_result, "{text}");
        }
        for (text, field) in [
            (r#"{"result":{}}"#, "reply_subject"),
            (r#"{"reply_subject":"s"}"#, "result"),
        ] {
            let error = read_item(text, ItemBounds::for_tests())
                .err()
                .expect("a member is missing");
            assert_eq!(error.problem().field.as_deref(), Some(field));
        }
    }
}
