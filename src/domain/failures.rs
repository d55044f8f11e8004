//! Failures grouped by what they say.
//!
//! Owns: when two errors count as the same. Never: reads anything. Invariant: the counts of the groups and of the rest sum to the failures
//! that were added.

use super::ids::{TaskNo, UnixMs};
use std::collections::HashMap;

const MAX_CHARS: usize = 200;
/// Tasks named per group.
const TASKS: usize = 5;
/// Different errors told apart; later ones are only counted.
const KINDS: usize = 1_000;

/// Failures whose errors differ in numbers only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The error with every run of digits as `#`, cut.
    pub error: String,
    pub count: u32,
    /// The first error of the group as it was.
    pub example: String,
    /// The first few tasks.
    pub tasks: Vec<TaskNo>,
    pub last_at: UnixMs,
}

/// Failures being grouped.
#[derive(Debug, Default)]
pub struct Groups {
    by_error: HashMap<String, Group>,
    rest: u32,
}

impl Groups {
    pub fn add(&mut self, task: TaskNo, error: &str, at: UnixMs) {
        let kind = normal(error);
        if self.by_error.len() >= KINDS && !self.by_error.contains_key(&kind) {
            self.rest += 1;
            return;
        }
        let group = self.by_error.entry(kind.clone()).or_insert_with(|| Group {
            error: kind,
            count: 0,
            example: error.to_owned(),
            tasks: Vec::new(),
            last_at: at,
        });
        group.count += 1;
        group.last_at = group.last_at.max(at);
        if group.tasks.len() < TASKS {
            group.tasks.push(task);
        }
    }

    /// The largest groups, and how many failures are in none of them.
    pub fn finish(self, most: usize) -> (Vec<Group>, u32) {
        let mut groups: Vec<Group> = self.by_error.into_values().collect();
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.error.cmp(&b.error)));
        let left_out = groups.iter().skip(most).map(|group| group.count).sum::<u32>();
        groups.truncate(most);
        (groups, self.rest + left_out)
    }
}

/// What two errors must share to be of one kind.
fn normal(error: &str) -> String {
    let mut normal = String::new();
    let mut in_digits = false;
    for c in error.trim().chars() {
        let digit = c.is_ascii_digit();
        if !(digit && in_digits) {
            normal.push(if digit { '#' } else { c });
        }
        in_digits = digit;
    }
    normal.chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_differ_in_numbers_only_are_one_group() {
        let mut groups = Groups::default();
        for (n, error) in ["no image 17", "no image 4", "timeout", " no image 900 ", "x1y22z"]
            .iter()
            .enumerate()
        {
            groups.add(TaskNo(n as u32), error, UnixMs(n as i64));
        }
        let (groups, rest) = groups.finish(2);
        assert_eq!((groups[0].error.as_str(), groups[0].count, rest), ("no image #", 3, 1));
        assert_eq!(groups[0].example, "no image 17");
        assert_eq!(
            (&groups[0].tasks[..], groups[0].last_at),
            (&[TaskNo(0), TaskNo(1), TaskNo(3)][..], UnixMs(3))
        );
        assert_eq!(groups.len(), 2);
        assert_eq!(normal("x1y22z"), "x#y#z");
    }

    #[test]
    fn kinds_and_tasks_are_bounded_and_the_counts_still_sum() {
        let mut groups = Groups::default();
        for n in 0..KINDS as u32 + 5 {
            let word: String = n.to_string().chars().map(|c| (c as u8 + 49) as char).collect();
            groups.add(TaskNo(n), &word, UnixMs(0));
        }
        (0..9).for_each(|n| groups.add(TaskNo(n), "a", UnixMs(0)));
        let (kept, rest) = groups.finish(10);
        assert_eq!(kept[0].tasks.len(), TASKS);
        assert_eq!(kept.iter().map(|g| g.count).sum::<u32>() + rest, KINDS as u32 + 5 + 9);
    }
}
