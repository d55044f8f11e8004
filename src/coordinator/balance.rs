//! Which queues a node takes, and which one it gives up.
//!
//! Owns: the shares. Never: takes or gives one (`beat` does). Invariant: pure and the same on every node that sees the same census: whoever is
//! above its share gives, whoever is below takes, and a node at its share does nothing, so queues come to rest.

use crate::store::{Census, QueueOwner};

/// Idle queues given up at once: nothing of them is under way.
const IDLE_AT_ONCE: usize = 32;

/// What to do about a census.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Queues that nobody serves.
    pub(super) take: Vec<String>,
    pub(super) give: Vec<String>,
}

/// Plans for the node `me`. `settled`: the same surplus was seen before, so it is no passing one.
pub(super) fn plan(census: &Census, me: &str, settled: bool) -> Plan {
    let serving = census
        .nodes
        .iter()
        .filter(|node| !node.draining && !node.address.is_empty());
    let serving: Vec<&str> = serving.map(|node| node.node.as_str()).collect();
    if !serving.contains(&me) {
        return Plan::default();
    }
    let mut plan = Plan::default();
    let (busy, idle): (Vec<&QueueOwner>, Vec<&QueueOwner>) = census.queues.iter().partition(|queue| queue.busy);
    for (kind, at_once) in [(&busy, 1), (&idle, IDLE_AT_ONCE)] {
        let share = kind.len().div_ceil(serving.len());
        let mine: Vec<&&QueueOwner> = kind.iter().filter(|queue| queue.node.as_deref() == Some(me)).collect();
        let free = kind.iter().filter(|queue| queue.node.is_none());
        plan.take.extend(
            free.take(share.saturating_sub(mine.len()))
                .map(|queue| queue.queue.clone()),
        );
        let surplus = mine.len().saturating_sub(share).min(at_once);
        if settled {
            // The youngest first, so that what has been somewhere for long stays there.
            plan.give
                .extend(mine.iter().rev().take(surplus).map(|queue| queue.queue.clone()));
        }
    }
    plan
}

/// Does the node own more than its share?
pub(super) fn has_surplus(census: &Census, me: &str) -> bool {
    !plan(census, me, true).give.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{Epoch, QueueId};
    use crate::store::LivingNode;
    use std::collections::BTreeMap;

    fn census(nodes: &[&str], queues: &[(&str, bool)]) -> Census {
        let living = |name: &&str| LivingNode {
            node: (*name).to_owned(),
            incarnation: "1".into(),
            address: "http://x".into(),
            draining: false,
            left_ms: 1_000,
        };
        let owned = |(i, (owner, busy)): (usize, &(&str, bool))| QueueOwner {
            queue: format!("q{i}"),
            id: QueueId(i as i32),
            epoch: Epoch(1),
            node: (!owner.is_empty()).then(|| (*owner).to_owned()),
            busy: *busy,
        };
        Census {
            nodes: nodes.iter().map(living).collect(),
            queues: queues.iter().enumerate().map(owned).collect(),
        }
    }

    /// Lets every node act on the same census, as often as it takes; answers the rounds and who has how many busy queues.
    fn rest(mut census: Census) -> (usize, BTreeMap<String, usize>) {
        for round in 0..1_000 {
            let plans: Vec<(String, Plan)> = census
                .nodes
                .iter()
                .map(|node| (node.node.clone(), plan(&census, &node.node, true)))
                .collect();
            if plans.iter().all(|(_, plan)| *plan == Plan::default()) {
                let mut counts = BTreeMap::new();
                for queue in census.queues.iter().filter(|queue| queue.busy) {
                    *counts.entry(queue.node.clone().unwrap_or_default()).or_insert(0) += 1;
                }
                return (round, counts);
            }
            for (node, plan) in plans {
                for queue in &mut census.queues {
                    if plan.give.contains(&queue.queue) {
                        queue.node = None;
                    } else if plan.take.contains(&queue.queue) && queue.node.is_none() {
                        queue.node = Some(node.clone());
                    }
                }
            }
        }
        panic!("queues never come to rest");
    }

    #[test]
    fn queues_spread_evenly_and_come_to_rest() {
        for nodes in 1..=5 {
            for queues in 0..=17 {
                let names = &["a", "b", "c", "d", "e"][..nodes];
                let all_on_one = vec![("a", true); queues];
                let nobody = vec![("", true); queues];
                for start in [all_on_one, nobody] {
                    let (_, counts) = rest(census(names, &start));
                    assert_eq!(counts.values().sum::<usize>(), queues, "each has an owner: {counts:?}");
                    assert!(!counts.contains_key(""));
                    let most = counts.values().max().copied().unwrap_or(0);
                    assert!(
                        most <= queues.div_ceil(nodes),
                        "{nodes} nodes, {queues} queues: {counts:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn one_busy_queue_moves_at_a_time_and_only_if_the_surplus_stays() {
        let census = census(&["a", "b"], &[("a", true), ("a", true), ("a", true), ("a", true)]);
        assert_eq!(plan(&census, "a", false), Plan::default());
        assert_eq!(plan(&census, "a", true).give, ["q3"]);
        assert_eq!(plan(&census, "b", true), Plan::default());
    }

    #[test]
    fn a_node_that_drains_or_does_not_listen_takes_nothing_and_counts_for_nobody() {
        let mut census = census(&["a", "b"], &[("", true), ("", true)]);
        census.nodes[1].draining = true;
        assert_eq!(plan(&census, "b", true), Plan::default());
        assert_eq!(plan(&census, "a", true).take, ["q0", "q1"]);
        census.nodes[0].address.clear();
        assert_eq!(plan(&census, "a", true), Plan::default());
    }

    #[test]
    fn idle_queues_are_spread_by_themselves() {
        let mut queues = vec![("a", false); 5];
        queues.push(("a", true));
        let plan = plan(&census(&["a", "b"], &queues), "a", true);
        assert_eq!(plan.give, ["q4", "q3"], "the one with work stays");
    }
}
