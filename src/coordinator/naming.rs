//! Results that name their task by its key, where the lease cannot be read.
//!
//! Owns: finding the tasks and the tokens to judge such results by. Never: decides what they do (the ledger does, when they are posted).
//! Invariant: a key that no task of the job has yields no token.

use super::api::{KeyedResult, Report};
use super::directory::Lane;
use super::handle::mismatched;
use super::job_actor::{Answer, Request};
use super::{Coordinator, Result};
use crate::domain::ids::JobId;
use std::collections::HashMap;
use std::sync::Arc;

impl Coordinator {
    /// The token text for each of these results, or none.
    pub async fn name_leases(
        &self,
        job: JobId,
        worker: &Arc<str>,
        keyed: &[KeyedResult],
    ) -> Result<Vec<Option<String>>> {
        let keys: Vec<String> = keyed.iter().map(|result| result.key.clone()).collect();
        let reading = self.shared.store.tasks_by_key(job, &keys);
        let tasks: HashMap<String, _> = self.within_store_wait(reading).await??.into_iter().collect();
        let known = keyed
            .iter()
            .filter_map(|result| Some((*tasks.get(&result.key)?, result.succeeded)));
        let request = Request::Name {
            worker: worker.clone(),
            tasks: known.collect(),
        };
        let Answer::Named(tokens) = self.ask_job(job, Lane::Results, request).await? else {
            return Err(mismatched());
        };
        let mut tokens = tokens.into_iter();
        let token = |result: &KeyedResult| tasks.get(&result.key).and_then(|_| tokens.next());
        Ok(keyed
            .iter()
            .map(token)
            .map(|token| token.map(|lease| lease.encode()))
            .collect())
    }
}

impl KeyedResult {
    pub fn new(key: String, report: &Report) -> KeyedResult {
        KeyedResult {
            key,
            succeeded: matches!(report, Report::Succeeded { .. }),
        }
    }
}
