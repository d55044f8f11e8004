//! OpenAPI schemas of domain values that appear on the wire as they are.
//!
//! Owns: their description; it is written here because the domain names no HTTP. Never: their serde form. Invariant: a test compares
//! each schema's members with what serde prints.

use crate::domain::job::{JobError, Stage};
use crate::domain::ledger::Disposition;
use crate::domain::policy::{Backoff, FailureThreshold, Policy};
use crate::domain::progress::{Progress, StageProgress};
use crate::domain::state::State;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

fn plain(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

fn nullable(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([kind, Type::Null]))
}

fn counts() -> ObjectBuilder {
    ObjectBuilder::new().additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(plain(Type::Integer).into()))))
}

/// Says that every member is there; those of `but` need not be.
fn always(object: ObjectBuilder, but: &[&str]) -> Schema {
    let mut object = object.build();
    let names = object.properties.keys().filter(|name| !but.contains(&name.as_str()));
    object.required = names.cloned().collect();
    object.into()
}

/// Text, or a whole number.
pub(super) fn text_or_number() -> Schema {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Integer]))
        .into()
}

/// A [`Policy`] as it is asked for: what is absent takes its default.
#[derive(Debug)]
pub(super) struct PolicyIn;

/// The same of its [`Backoff`].
#[derive(Debug)]
pub(super) struct BackoffIn;

fn policy(backoff: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .property("max_attempts", plain(Type::Integer))
        .property("lease_timeout_s", plain(Type::Integer))
        .property("backoff", Ref::from_schema_name(backoff))
        .property("failure_threshold", Ref::from_schema_name("FailureThreshold"))
        .property("abort_early", plain(Type::Boolean))
        .property("max_in_flight", nullable(Type::Integer))
}

fn backoff() -> ObjectBuilder {
    ObjectBuilder::new()
        .property("initial_s", plain(Type::Number))
        .property("factor", plain(Type::Number))
        .property("max_s", plain(Type::Number))
        .property("jitter", plain(Type::Number))
}

macro_rules! schema {
    ($type:ident => $build:expr $(, uses $($used:ident),+)?) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $build.into()
            }
        }

        impl ToSchema for $type {
            fn schemas(_schemas: &mut Vec<(String, RefOr<Schema>)>) {
                $($(
                    _schemas.push((<$used as ToSchema>::name().into_owned(), <$used as PartialSchema>::schema()));
                    <$used as ToSchema>::schemas(_schemas);
                )+)?
            }
        }
    };
}

fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    plain(Type::String).enum_values(Some(words.into_iter().map(str::to_owned).collect::<Vec<_>>()))
}

schema!(State => words(crate::domain::state::ALL.map(State::as_str)));
schema!(Disposition => words([
    "counted", "duplicate", "retrying", "superseded", "stale_run", "late", "unknown_task", "rejected",
]));
schema!(Stage => ObjectBuilder::new()
    .property("key", plain(Type::String))
    .property("name", plain(Type::String))
    .required("key")
    .required("name"));
schema!(JobError => always(ObjectBuilder::new()
    .property("code", plain(Type::String))
    .property("message", plain(Type::String)), &[]));
schema!(FailureThreshold => OneOfBuilder::new()
    .item(ObjectBuilder::new().property("ratio", plain(Type::Number)).required("ratio"))
    .item(ObjectBuilder::new().property("count", plain(Type::Integer)).required("count")));
schema!(Backoff => always(backoff(), &[]));
schema!(BackoffIn => Schema::from(backoff()));
schema!(Policy => always(policy("Backoff"), &["max_in_flight"]), uses Backoff, FailureThreshold);
schema!(PolicyIn => Schema::from(policy("BackoffIn")), uses BackoffIn, FailureThreshold);
schema!(StageProgress => always(ObjectBuilder::new()
    .property("key", plain(Type::String))
    .property("name", plain(Type::String))
    .property("reached", plain(Type::Integer))
    .property("total", plain(Type::Integer))
    .property("fraction", nullable(Type::Number)), &[]));
schema!(Progress => always(ObjectBuilder::new()
    .property("seq", plain(Type::Integer))
    .property("total", plain(Type::Integer))
    .property("pending", plain(Type::Integer))
    .property("leased", plain(Type::Integer))
    .property("retrying", plain(Type::Integer))
    .property("succeeded", plain(Type::Integer))
    .property("failed", plain(Type::Integer))
    .property("fraction", nullable(Type::Number))
    .property("rate_per_s", nullable(Type::Number))
    .property("eta_s", nullable(Type::Number))
    .property("counters", counts())
    .property("stages", ArrayBuilder::new().items(Ref::from_schema_name("StageProgress"))), &[]), uses StageProgress);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Seq;
    use serde::Serialize;
    use std::collections::BTreeSet;

    fn members<T: PartialSchema + Serialize>(value: &T) -> (BTreeSet<String>, BTreeSet<String>) {
        let schema = serde_json::to_value(T::schema()).unwrap();
        let printed = serde_json::to_value(value).unwrap();
        let keys = |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect();
        (keys(&schema["properties"]), keys(&printed))
    }

    #[test]
    fn schemas_name_exactly_the_members_serde_prints() {
        let policy = Policy {
            max_in_flight: Some(1),
            ..Policy::default()
        };
        let stage = StageProgress {
            key: "a".into(),
            name: "A".into(),
            reached: 0,
            total: 0,
            fraction: None,
        };
        let progress = Progress {
            seq: Seq(0),
            total: 0,
            pending: 0,
            leased: 0,
            retrying: 0,
            succeeded: 0,
            failed: 0,
            fraction: None,
            rate_per_s: None,
            eta_s: None,
            counters: Default::default(),
            stages: vec![stage.clone()],
        };
        for (described, printed) in [
            members(&policy),
            members(&policy.backoff),
            members(&stage),
            members(&progress),
        ] {
            assert_eq!(described, printed);
        }
    }

    #[test]
    fn every_listed_word_is_one_serde_reads() {
        let listed = serde_json::to_value(Disposition::schema()).unwrap();
        for word in listed["enum"].as_array().unwrap() {
            serde_json::from_value::<Disposition>(word.clone()).unwrap();
        }
    }
}
