//! Nodes and the ownership of queues.
//!
//! Owns: who is alive and who owns what. Never: touches a job. Invariant: an epoch only grows, and it grows whenever the owner changes
//! hands. One process has the file, yet the same rules hold as on a shared store, so that both behave alike.

use super::Sqlite;
use super::record::parse_state;
use super::schema;
use crate::domain::ids::{Epoch, QueueId, UnixMs};
use crate::store::{
    Census, ClusterSecret, LivingNode, NodeIdentity, NodeRow, NodeStore, OwnedQueue, Ownership, QueueOwner, QueueRow,
    Result, StoreError,
};
use async_trait::async_trait;
use rusqlite::{Connection, params};
use std::time::{SystemTime, UNIX_EPOCH};

/// The store's clock is the machine's.
pub(super) fn now() -> UnixMs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(since_epoch.as_millis() as i64)
}

#[async_trait]
impl NodeStore for Sqlite {
    async fn migrate(&self) -> Result<u32> {
        self.writer.run(schema::migrate).await
    }

    async fn clock(&self) -> Result<UnixMs> {
        // Through the writer: a health check that passes while the writer is stuck would be none.
        self.writer
            .run(|db| {
                db.prepare_cached(include_str!("queries/nodes/clock.sql"))?
                    .query_row([], |_| Ok(now()))
                    .map_err(StoreError::from)
            })
            .await
    }

    async fn register_node(&self, node: &NodeIdentity, replace: bool) -> Result<()> {
        let node = node.clone();
        self.writer
            .transact(move |tx| register(tx, &node, replace, now()))
            .await
    }

    async fn heartbeat(&self, node: &NodeIdentity) -> Result<()> {
        let node = node.clone();
        self.writer
            .transact(move |tx| {
                let found = tx
                    .prepare_cached(include_str!("queries/nodes/heartbeat.sql"))?
                    .execute(params![
                        node.node,
                        node.incarnation,
                        node.lease_s,
                        node.address,
                        now().0
                    ])?;
                if found == 0 { Err(replaced(&node)) } else { Ok(()) }
            })
            .await
    }

    async fn take_queues(&self, node: &NodeIdentity, queue: Option<&str>) -> Result<Ownership> {
        let (node, queue) = (node.clone(), queue.map(str::to_owned));
        self.writer
            .transact(move |tx| take(tx, &node, queue.as_deref(), now()))
            .await
    }

    async fn release_queues(&self, node: &NodeIdentity, queue: Option<QueueId>) -> Result<()> {
        let node = node.clone();
        self.writer.transact(move |tx| release(tx, &node, queue)).await
    }

    async fn announce_drain(&self, node: &NodeIdentity) -> Result<()> {
        let node = node.clone();
        self.writer
            .transact(move |tx| {
                tx.prepare_cached(include_str!("queries/nodes/drain.sql"))?
                    .execute(params![node.node, node.incarnation])?;
                Ok(())
            })
            .await
    }

    async fn release_node(&self, node: &NodeIdentity) -> Result<()> {
        let node = node.clone();
        self.writer
            .transact(move |tx| {
                release(tx, &node, None)?;
                tx.prepare_cached(include_str!("queries/nodes/leave.sql"))?
                    .execute(params![node.node, node.incarnation])?;
                Ok(())
            })
            .await
    }

    async fn census(&self) -> Result<Census> {
        self.readers.run(|db| census(db, now())).await
    }

    async fn cluster_secret(&self) -> Result<ClusterSecret> {
        self.readers
            .run(|db| {
                let secret = db
                    .prepare_cached(include_str!("queries/nodes/secret.sql"))?
                    .query_row([], |row| row.get(0))?;
                Ok(ClusterSecret::new(secret))
            })
            .await
    }

    async fn list_nodes(&self) -> Result<Vec<NodeRow>> {
        self.readers.run(|db| list(db, now())).await
    }

    async fn list_queues(&self) -> Result<Vec<QueueRow>> {
        self.readers.run(|db| queues(db)).await
    }
}

fn replaced(node: &NodeIdentity) -> StoreError {
    StoreError::Fenced(format!(
        "node {} is not registered as incarnation {}",
        node.node, node.incarnation
    ))
}

fn register(db: &Connection, node: &NodeIdentity, replace: bool, now: UnixMs) -> Result<()> {
    let registered = db
        .prepare_cached(include_str!("queries/nodes/register.sql"))?
        .execute(params![
            node.node,
            node.incarnation,
            node.address,
            node.lease_s,
            now.0,
            replace
        ])?;
    if registered == 0 {
        return Err(StoreError::Conflict(format!(
            "another incarnation of node {} is alive",
            node.node
        )));
    }
    Ok(())
}

fn take(db: &Connection, node: &NodeIdentity, queue: Option<&str>, now: UnixMs) -> Result<Ownership> {
    // An incarnation that was replaced must not win back queues from its successor.
    let registered = db
        .prepare_cached(include_str!("queries/nodes/current.sql"))?
        .exists(params![node.node, node.incarnation])?;
    if !registered {
        return Err(replaced(node));
    }
    if let Some(queue) = queue {
        db.prepare_cached(include_str!("queries/queues/ensure.sql"))?
            .query_row([queue], |_| Ok(()))?;
    }
    db.prepare_cached(include_str!("queries/queues/take.sql"))?
        .execute(params![node.node, node.incarnation, queue, now.0])?;
    let owned = db
        .prepare_cached(include_str!("queries/queues/owned.sql"))?
        .query_map(params![node.node, node.incarnation], |row| {
            Ok(OwnedQueue {
                queue: row.get(0)?,
                id: QueueId(row.get(1)?),
                epoch: Epoch(row.get(2)?),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let held_by_others = db
        .prepare_cached(include_str!("queries/queues/held.sql"))?
        .query_map(params![node.node, now.0], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Ownership { owned, held_by_others })
}

fn release(db: &Connection, node: &NodeIdentity, queue: Option<QueueId>) -> Result<()> {
    db.prepare_cached(include_str!("queries/queues/release.sql"))?
        .execute(params![node.node, node.incarnation, queue.map(|queue| queue.0)])?;
    Ok(())
}

fn census(db: &Connection, now: UnixMs) -> Result<Census> {
    let queues = db
        .prepare_cached(include_str!("queries/queues/owners.sql"))?
        .query_map([now.0], |row| {
            Ok(QueueOwner {
                queue: row.get(0)?,
                id: QueueId(row.get(1)?),
                epoch: Epoch(row.get(2)?),
                node: row.get(3)?,
                busy: row.get(4)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let nodes = db
        .prepare_cached(include_str!("queries/nodes/living.sql"))?
        .query_map([now.0], |row| {
            Ok(LivingNode {
                node: row.get(0)?,
                incarnation: row.get(1)?,
                address: row.get(2)?,
                draining: row.get(3)?,
                left_ms: row.get(4)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Census { nodes, queues })
}

fn queues(db: &Connection) -> Result<Vec<QueueRow>> {
    let mut list = db.prepare_cached(include_str!("queries/queues/list.sql"))?;
    let mut rows = list.query([])?;
    let mut queues: Vec<QueueRow> = Vec::new();
    while let Some(row) = rows.next()? {
        let queue: String = row.get(0)?;
        if queues.last().is_none_or(|last| last.queue != queue) {
            queues.push(QueueRow {
                queue,
                epoch: Epoch(row.get(1)?),
                node: row.get(2)?,
                jobs: Vec::new(),
            });
        }
        let state: Option<String> = row.get(3)?;
        if let (Some(state), Some(last)) = (state, queues.last_mut()) {
            last.jobs
                .push((parse_state(&state)?, row.get::<_, i64>(4)?.unsigned_abs()));
        }
    }
    Ok(queues)
}

fn list(db: &Connection, now: UnixMs) -> Result<Vec<NodeRow>> {
    let rows = db
        .prepare_cached(include_str!("queries/nodes/list.sql"))?
        .query_map([now.0], |row| {
            Ok(NodeRow {
                node: row.get(0)?,
                incarnation: row.get(1)?,
                address: row.get(2)?,
                alive: row.get(3)?,
                started_at: UnixMs(row.get(4)?),
                seen_at: UnixMs(row.get(5)?),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}
