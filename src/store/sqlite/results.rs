//! Results of a job's current view, one row per decided task.
//!
//! Owns: picking the row that speaks for a task. Never: holds more than one page. Invariant: tasks come in order of their numbers, each
//! at most once.

use super::reads::verdict;
use crate::domain::ids::{BlobId, Run, TaskNo, UnixMs};
use crate::domain::rows::Verdict;
use crate::store::{BlobRef, Result, ResultFilter, ResultRow, StoreError};
use rusqlite::{Connection, Row, params};

/// Reads from the first task after `filter.after` until the page is full by rows or by bytes.
pub(super) fn page(db: &Connection, filter: &ResultFilter) -> Result<Vec<ResultRow>> {
    let after = filter.after.map_or(-1, |task| i64::from(task.0));
    let mut statement = db.prepare_cached(include_str!("queries/results/page.sql"))?;
    let mut rows = statement.query(params![filter.job.0, after, filter.base_run.0, filter.run.0])?;
    let mut page = Page::new(filter);
    let mut best: Option<ResultRow> = None;
    while !page.is_full()
        && let Some(row) = rows.next()?
    {
        let candidate = from_row(row)?;
        match &mut best {
            Some(held) if held.task == candidate.task => {
                if rank(&candidate) > rank(held) {
                    *held = candidate;
                }
            }
            _ => page.add(best.replace(candidate)),
        }
    }
    if !page.is_full() {
        page.add(best);
    }
    Ok(page.rows)
}

/// The latest standing success, else the current run's failure, else the latest late result.
fn rank(row: &ResultRow) -> (bool, bool, Run) {
    (!row.late, row.verdict == Verdict::Succeeded, row.run)
}

struct Page<'a> {
    filter: &'a ResultFilter,
    rows: Vec<ResultRow>,
    bytes: u64,
}

impl<'a> Page<'a> {
    fn new(filter: &'a ResultFilter) -> Self {
        Page {
            filter,
            rows: Vec::new(),
            bytes: 0,
        }
    }

    fn add(&mut self, row: Option<ResultRow>) {
        let Some(row) = row else { return };
        if self.filter.verdict.is_some_and(|verdict| verdict != row.verdict) {
            return;
        }
        let text = row.result.as_ref().map(|text| text.len() as u64);
        let bytes = text.or(row.blob.map(|blob| blob.bytes)).unwrap_or(0);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= self.filter.max_bytes as u64 || self.rows.is_empty() {
            self.rows.push(row);
        }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.filter.limit as usize || self.bytes > self.filter.max_bytes as u64
    }
}

/// Reads a row of `results/page.sql`: task, run, late, succeeded, attempt, at, worker, counters, error, result, took_ms, key, blob id
/// and bytes.
fn from_row(row: &Row<'_>) -> Result<ResultRow> {
    Ok(ResultRow {
        task: TaskNo(row.get(0)?),
        run: Run(row.get(1)?),
        late: row.get(2)?,
        verdict: verdict(row, 3)?,
        attempt: row.get(4)?,
        at: UnixMs(row.get(5)?),
        worker: row.get(6)?,
        counters: row.get(7)?,
        error: row.get(8)?,
        result: row.get(9)?,
        took_ms: row.get(10)?,
        key: row.get(11)?,
        blob: blob(row)?,
    })
}

fn blob(row: &Row<'_>) -> Result<Option<BlobRef>> {
    let Some(id) = row.get::<_, Option<i64>>(12)? else {
        return Ok(None);
    };
    let bytes: Option<i64> = row.get(13)?;
    let bytes = bytes.ok_or_else(|| StoreError::Corrupt(format!("blob {id} is gone")))?;
    Ok(Some(BlobRef {
        id: BlobId(id),
        bytes: bytes.unsigned_abs(),
    }))
}
