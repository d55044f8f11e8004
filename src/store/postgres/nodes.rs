//! Nodes: registration, signs of life, and giving up.
//!
//! Owns: who counts as alive, by the database's clock. Never: writes a job. Invariant: of one node id one incarnation is registered.

use super::{Postgres, row, schema, take};
use crate::domain::ids::UnixMs;
use crate::store::{NodeIdentity, NodeRow, NodeStore, Ownership, QueueRow, Result, StoreError};
use async_trait::async_trait;

const CLOCK: &str = include_str!("queries/nodes/clock.sql");
const REGISTER: &str = include_str!("queries/nodes/register.sql");
const HEARTBEAT: &str = include_str!("queries/nodes/heartbeat.sql");
const LEAVE: &str = include_str!("queries/nodes/leave.sql");
const LIST: &str = include_str!("queries/nodes/list.sql");
const LIST_QUEUES: &str = include_str!("queries/queues/list.sql");
const RELEASE_QUEUES: &str = include_str!("queries/queues/release.sql");

/// The identity as columns: the lease fits, or the setting is wrong.
fn lease_s(node: &NodeIdentity) -> Result<i32> {
    row::narrow("lease_s", node.lease_s)
}

#[async_trait]
impl NodeStore for Postgres {
    async fn migrate(&self) -> Result<u32> {
        schema::migrate(&self.config).await
    }

    async fn clock(&self) -> Result<UnixMs> {
        let row = self.control().await?.first(CLOCK, &[]).await?;
        row.map(|row| UnixMs(row.get(0)))
            .ok_or_else(|| StoreError::Corrupt("the clock gave no row".into()))
    }

    async fn register_node(&self, node: &NodeIdentity, replace: bool) -> Result<()> {
        let lease_s = lease_s(node)?;
        let registered = self
            .control()
            .await?
            .first(
                REGISTER,
                &[&node.node, &node.incarnation, &node.address, &lease_s, &replace],
            )
            .await?;
        match registered {
            Some(_) => Ok(()),
            None => Err(StoreError::Conflict(format!("node {} is alive elsewhere", node.node))),
        }
    }

    async fn heartbeat(&self, node: &NodeIdentity) -> Result<()> {
        let lease_s = lease_s(node)?;
        let seen = self
            .control()
            .await?
            .first(HEARTBEAT, &[&node.node, &node.incarnation, &lease_s])
            .await?;
        match seen {
            Some(_) => Ok(()),
            None => Err(StoreError::Fenced(format!(
                "node {} is no longer this incarnation",
                node.node
            ))),
        }
    }

    async fn take_queues(&self, node: &NodeIdentity, queue: Option<&str>) -> Result<Ownership> {
        take::take(self, node, queue).await
    }

    async fn release_node(&self, node: &NodeIdentity) -> Result<()> {
        let session = self.control().await?;
        session.begin().await?;
        session
            .execute(RELEASE_QUEUES, &[&node.node, &node.incarnation])
            .await?;
        session.execute(LEAVE, &[&node.node, &node.incarnation]).await?;
        session.commit().await
    }

    async fn list_nodes(&self) -> Result<Vec<NodeRow>> {
        let rows = self.reader().await?.query(LIST, &[]).await?;
        rows.iter().map(row::node).collect()
    }

    async fn list_queues(&self) -> Result<Vec<QueueRow>> {
        let rows = self.reader().await?.query(LIST_QUEUES, &[]).await?;
        let mut queues: Vec<QueueRow> = Vec::new();
        for row in &rows {
            let (queue, count) = row::queue(row)?;
            match queues.last_mut().filter(|last| last.queue == queue.queue) {
                Some(last) => last.jobs.extend(count),
                None => queues.push(QueueRow {
                    jobs: count.into_iter().collect(),
                    ..queue
                }),
            }
        }
        Ok(queues)
    }
}
