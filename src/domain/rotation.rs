//! Fairness among a queue's jobs: larger priority first, then the least recently served.
//!
//! Owns: the order in which claimable jobs are asked for work. Never: knows a job's tasks. Invariant: a job is in the order exactly
//! while it is claimable, so what is offered is what can be leased.

use super::ids::JobId;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

/// Priority, last serving, and the job.
pub type Place = (Reverse<i32>, u64, JobId);

/// The claimable jobs of one queue, in the order they are to be served.
#[derive(Debug, Default)]
pub struct Rotation {
    order: BTreeSet<Place>,
    places: HashMap<JobId, Place>,
    /// When a job was last served; kept while a job pauses so that it does not jump the line.
    served: HashMap<JobId, u64>,
}

impl Rotation {
    /// Puts a job into the order, or moves it when its priority changed.
    pub fn offer(&mut self, job: JobId, priority: i32) {
        // A job seen for the first time counts as served long ago: newcomers do not wait behind a large job.
        let served = self.served.get(&job).copied().unwrap_or(0);
        self.place(job, (Reverse(priority), served, job));
    }

    /// Takes a job out of the order: it has nothing to lease.
    pub fn withdraw(&mut self, job: JobId) {
        if let Some(place) = self.places.remove(&job) {
            self.order.remove(&place);
        }
    }

    /// Forgets a job for good.
    pub fn forget(&mut self, job: JobId) {
        self.withdraw(job);
        self.served.remove(&job);
    }

    /// Notes that a job was given work; it goes behind its equals. `serving` grows with every serving of the whole node, so that the
    /// heads of several queues can be compared.
    pub fn served(&mut self, job: JobId, serving: u64) {
        self.served.insert(job, serving);
        if let Some(&(priority, _, _)) = self.places.get(&job) {
            self.place(job, (priority, serving, job));
        }
    }

    /// The job to serve next, without serving it.
    pub fn head(&self) -> Option<JobId> {
        self.order.first().map(|&(_, _, job)| job)
    }

    /// Priority and last serving of the head, to compare queues with each other.
    pub fn head_rank(&self) -> Option<(Reverse<i32>, u64)> {
        self.order.first().map(|&(priority, served, _)| (priority, served))
    }

    /// Claimable jobs in serving order.
    pub fn iter(&self) -> impl Iterator<Item = JobId> + '_ {
        self.order.iter().map(|&(_, _, job)| job)
    }

    /// The same with what places them, to merge the orders of several queues.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.order.iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn place(&mut self, job: JobId, place: Place) {
        self.withdraw(job);
        self.order.insert(place);
        self.places.insert(job, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(rotation: &mut Rotation) -> i64 {
        let job = rotation.head().expect("a job is offered");
        let serving = rotation.served.values().max().copied().unwrap_or(0) + 1;
        rotation.served(job, serving);
        job.0
    }

    #[test]
    fn fm10_small_jobs_do_not_starve_behind_a_large_one() {
        let mut rotation = Rotation::default();
        rotation.offer(JobId(1), 0);
        for _ in 0..100 {
            assert_eq!(serve(&mut rotation), 1);
        }
        rotation.offer(JobId(2), 0);
        rotation.offer(JobId(3), 0);
        let order: Vec<_> = (0..6).map(|_| serve(&mut rotation)).collect();
        assert_eq!(order, [2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn fm08_a_job_without_work_is_not_offered() {
        let mut rotation = Rotation::default();
        rotation.offer(JobId(1), 0);
        rotation.withdraw(JobId(1));
        assert_eq!(rotation.head(), None);
        rotation.withdraw(JobId(1));
        assert!(rotation.is_empty());
    }

    #[test]
    fn priority_goes_first_and_may_change() {
        let mut rotation = Rotation::default();
        rotation.offer(JobId(1), 0);
        rotation.offer(JobId(2), 5);
        assert_eq!(serve(&mut rotation), 2);
        assert_eq!(serve(&mut rotation), 2);
        rotation.offer(JobId(2), 0);
        assert_eq!(serve(&mut rotation), 1);
    }

    #[test]
    fn withdrawing_does_not_let_a_job_jump_the_line() {
        let mut rotation = Rotation::default();
        rotation.offer(JobId(1), 0);
        rotation.offer(JobId(2), 0);
        assert_eq!(serve(&mut rotation), 1);
        rotation.withdraw(JobId(1));
        rotation.offer(JobId(1), 0);
        assert_eq!(serve(&mut rotation), 2);
    }
}
