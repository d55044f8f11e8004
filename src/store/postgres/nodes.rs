//! Nodes: registration, signs of life, and giving up.
//!
//! Owns: who counts as alive. Never: writes a job. Invariant: of one node id one incarnation is registered.
//!
//! To other nodes a node lives while its lease does, by the database's clock. To the next incarnation of its own node id that would be too
//! long: after kill -9 the node would stand still for the rest of the lease. So each incarnation also holds a session lock, on two connections:
//! the server frees it the moment the process ends, however it ends, but not when one connection breaks. Both are taken again at each
//! heartbeat.

use super::session::Session;
use super::{Postgres, row, schema, take};
use crate::domain::ids::{QueueId, UnixMs};
use crate::store::{Census, ClusterSecret, NodeIdentity, NodeRow, NodeStore, Ownership, QueueRow, Result, StoreError};
use async_trait::async_trait;
use futures_util::future::join;
use std::time::Duration;

const CLOCK: &str = include_str!("queries/nodes/clock.sql");
const REGISTER: &str = include_str!("queries/nodes/register.sql");
const HOLD: &str = include_str!("queries/nodes/hold.sql");
const HEARTBEAT: &str = include_str!("queries/nodes/heartbeat.sql");
const LEAVE: &str = include_str!("queries/nodes/leave.sql");
const DRAIN: &str = include_str!("queries/nodes/drain.sql");
const LIVING: &str = include_str!("queries/nodes/living.sql");
const SECRET: &str = include_str!("queries/nodes/secret.sql");
const OWNERS: &str = include_str!("queries/queues/owners.sql");
const LIST: &str = include_str!("queries/nodes/list.sql");
const LIST_QUEUES: &str = include_str!("queries/queues/list.sql");
const RELEASE_QUEUES: &str = include_str!("queries/queues/release.sql");

/// First key of the locks by which incarnations live, beside [`super::LOCK_NAMESPACE`]; the second is a hash of node id and incarnation.
const INCARNATION_LOCKS: i32 = super::LOCK_NAMESPACE + 1;

/// Longest wait for the second sign of life; a tenth of the lease if that is less.
const WITNESS_PATIENCE: Duration = Duration::from_secs(1);

/// Takes the lock of this incarnation, unless this session has it already. Waits only for a successor that is asking whether we live.
async fn hold(session: &Session, node: &NodeIdentity) -> Result<()> {
    let held = session
        .query(HOLD, &[&INCARNATION_LOCKS, &node.node, &node.incarnation])
        .await;
    held.map(drop)
}

/// The second lock is no reason to call a heartbeat failed, or to end it much later than it would without.
async fn keep_witness(store: &Postgres, node: &NodeIdentity) {
    let patience = Duration::from_millis(100 * u64::from(node.lease_s)).min(WITNESS_PATIENCE);
    let holding = async { hold(&store.witness().await?, node).await };
    match tokio::time::timeout(patience, holding).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::debug!(%why, "the second sign of life is missing"),
        Err(_) => tracing::debug!("the second sign of life was not given in time"),
    }
}

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
        // Before the row names it, so that nobody ever finds it registered and its lock free.
        hold(&self.control().await?, node).await?;
        hold(&self.witness().await?, node).await?;
        // From another session: to the one that holds a lock it always looks free.
        let registered = self
            .writer()
            .await?
            .first(
                REGISTER,
                &[
                    &node.node,
                    &node.incarnation,
                    &node.address,
                    &lease_s,
                    &replace,
                    &INCARNATION_LOCKS,
                ],
            )
            .await?;
        match registered {
            Some(_) => Ok(()),
            None => Err(StoreError::Conflict(format!("node {} is alive elsewhere", node.node))),
        }
    }

    async fn heartbeat(&self, node: &NodeIdentity) -> Result<()> {
        let lease_s = lease_s(node)?;
        let session = self.control().await?;
        // The connection may be another than at the last heartbeat, and the lock went with the old one.
        hold(&session, node).await?;
        let columns: super::session::Params = &[&node.node, &node.incarnation, &lease_s, &node.address];
        let (seen, ()) = join(session.first(HEARTBEAT, columns), keep_witness(self, node)).await;
        match seen? {
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

    async fn release_queues(&self, node: &NodeIdentity, queue: Option<QueueId>) -> Result<()> {
        let id = queue.map(|queue| queue.0);
        let released = self
            .writer()
            .await?
            .execute(RELEASE_QUEUES, &[&node.node, &node.incarnation, &id])
            .await;
        released.map(drop)
    }

    async fn announce_drain(&self, node: &NodeIdentity) -> Result<()> {
        let announced = self
            .control()
            .await?
            .execute(DRAIN, &[&node.node, &node.incarnation])
            .await;
        announced.map(drop)
    }

    async fn release_node(&self, node: &NodeIdentity) -> Result<()> {
        let session = self.control().await?;
        session.begin().await?;
        session
            .execute(RELEASE_QUEUES, &[&node.node, &node.incarnation, &None::<i32>])
            .await?;
        session.execute(LEAVE, &[&node.node, &node.incarnation]).await?;
        session.commit().await
    }

    async fn census(&self) -> Result<Census> {
        let session = self.reader().await?;
        // The queues first: an owner that dies in between is missed by the next look, not taken for one that nobody knows.
        let queues = session.query(OWNERS, &[]).await?;
        let nodes = session.query(LIVING, &[]).await?;
        Ok(Census {
            nodes: nodes.iter().map(row::living_node).collect::<Result<_>>()?,
            queues: queues.iter().map(row::queue_owner).collect::<Result<_>>()?,
        })
    }

    async fn cluster_secret(&self) -> Result<ClusterSecret> {
        let row = self.reader().await?.first(SECRET, &[]).await?;
        row.map(|row| ClusterSecret::new(row.get(0)))
            .ok_or_else(|| StoreError::Corrupt("the cluster has no secret".into()))
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
