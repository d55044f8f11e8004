//! The memory of this process: node and load together.
//!
//! Owns: asking the system for it. Never: fails a run where the system does not say. Invariant: none.

/// Lets the peak of this process' memory begin anew; best effort.
pub(super) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The peak of the memory this process had resident; none where the system does not say.
pub(super) fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}
