//! Taking queues over.
//!
//! Owns: the exclusive half of the fence. Never: takes a queue from a living other node. Invariant: when a queue's new epoch is visible,
//! every transaction that proved the old one has ended.

use super::fence::LOCK_NAMESPACE;
use super::session::Session;
use super::{Postgres, create, row};
use crate::store::{NodeIdentity, Ownership, Result, StoreError};
use futures_util::future::{join, join3};

const CURRENT: &str = include_str!("queries/nodes/current.sql");
const TAKEABLE: &str = include_str!("queries/queues/takeable.sql");
const LOCK: &str = include_str!("queries/queues/lock.sql");
const TAKE: &str = include_str!("queries/queues/take.sql");
const OWNED: &str = include_str!("queries/queues/owned.sql");
const HELD: &str = include_str!("queries/queues/held.sql");

pub(super) async fn take(store: &Postgres, node: &NodeIdentity, queue: Option<&str>) -> Result<Ownership> {
    // Not the heartbeat's connection: a take-over waits for the old owner, and the heartbeat must not wait with it.
    let session = store.writer().await?;
    let current = session.first(CURRENT, &[&node.node, &node.incarnation]).await?;
    if current.is_none() {
        return Err(StoreError::Fenced(format!(
            "node {} is no longer this incarnation",
            node.node
        )));
    }
    if let Some(queue) = queue {
        create::ensure_queue(&session, queue).await?;
    }
    let takeable = session
        .query(TAKEABLE, &[&node.node, &node.incarnation, &queue])
        .await?;
    drop(session);
    for row in &takeable {
        let id: i32 = row.get(0);
        match take_one(store, node, id).await {
            Ok(()) => {}
            // One stuck owner must not keep the other queues idle; this one is tried again at the next call. If it is the database
            // that is gone, the next statement says so.
            Err(why) if queue.is_none() && why.is_retryable() => {
                tracing::warn!(queue_id = id, %why, "queue not taken over");
            }
            Err(why) => return Err(why),
        }
    }
    ownership(store, node).await
}

/// One transaction per queue, so that waiting for one owner holds no lock on the queue of another.
async fn take_one(store: &Postgres, node: &NodeIdentity, queue: i32) -> Result<()> {
    let session = store.writer().await?;
    let taken = lock_and_take(&session, node, queue).await;
    session.settle(taken).await
}

async fn lock_and_take(session: &Session, node: &NodeIdentity, queue: i32) -> Result<()> {
    let lock = session.prepare(LOCK).await?;
    let take = session.prepare(TAKE).await?;
    // The epoch moves in a statement of its own, sent after the lock's: its snapshot is newer than the last commit of the old owner.
    let (head, ended) = join(
        join3(
            session.begin(),
            session.rows(&lock, &[&LOCK_NAMESPACE, &queue]),
            session.count(&take, &[&node.node, &node.incarnation, &queue]),
        ),
        session.commit(),
    )
    .await;
    let (begun, locked, taken) = head;
    begun?;
    locked?;
    taken?;
    ended
}

async fn ownership(store: &Postgres, node: &NodeIdentity) -> Result<Ownership> {
    let session = store.writer().await?;
    let owned = session.query(OWNED, &[&node.node, &node.incarnation]).await?;
    let held = session.query(HELD, &[&node.node]).await?;
    Ok(Ownership {
        owned: owned.iter().map(row::owned_queue).collect::<Result<_>>()?,
        held_by_others: held.iter().map(|row| (row.get("queue"), row.get("node"))).collect(),
    })
}
