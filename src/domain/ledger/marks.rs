//! Stage marks: which tasks have come how far.
//!
//! Owns: one set of tasks per stage. Never: decides anything; marks are for display only. Invariant: a set holds no succeeded task (success
//! implies every mark), and whoever is in the set of a stage is in the set of every stage before it.
//!
//! Marks are kept in the snapshot alone: a kill -9 loses those that came after it. What the job's row has counted is shown as a floor, so
//! that the numbers of a job that was saved, paused or ended never fall within its run.

use crate::domain::ids::TaskNo;
use roaring::RoaringBitmap;

#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    /// By the stage's place in the job; shorter than the job's list while nobody has come further.
    stages: Vec<RoaringBitmap>,
    /// Sizes of the sets, kept beside them: counting a bitmap costs a walk over its containers.
    counts: Vec<u32>,
}

impl Marks {
    /// Sets as a snapshot kept them, without tasks from `total` on.
    pub(super) fn restored(mut stages: Vec<RoaringBitmap>, total: u32) -> Marks {
        stages.iter_mut().for_each(|set| {
            set.remove_range(total..);
        });
        let counts = stages.iter().map(|set| set.len() as u32).collect();
        Marks { stages, counts }
    }

    pub(super) fn sets(&self) -> &[RoaringBitmap] {
        &self.stages
    }

    /// Marks an undecided or failed task as having come to the stage at this place, and so past every one before it.
    pub(super) fn reach(&mut self, task: TaskNo, place: usize) {
        while self.stages.len() <= place {
            self.stages.push(RoaringBitmap::new());
            self.counts.push(0);
        }
        for (set, count) in self.stages.iter_mut().zip(&mut self.counts).take(place + 1) {
            *count += u32::from(set.insert(task.0));
        }
    }

    /// The task has succeeded: its marks are implied from here on.
    pub(super) fn imply(&mut self, task: TaskNo) {
        for (set, count) in self.stages.iter_mut().zip(&mut self.counts) {
            *count -= u32::from(set.remove(task.0));
        }
    }

    /// Tasks without success that have come to the stage at this place.
    pub(super) fn count(&self, place: usize) -> u32 {
        self.counts.get(place).copied().unwrap_or(0)
    }

    pub(super) fn has_reached(&self, task: TaskNo, place: usize) -> bool {
        self.stages.get(place).is_some_and(|set| set.contains(task.0))
    }

    /// Place of the last stage that the task has come to.
    pub(super) fn last(&self, task: TaskNo) -> Option<usize> {
        self.stages.iter().rposition(|set| set.contains(task.0))
    }
}
