//! What went through a container's links.

use std::fs;
use std::os::unix::fs::MetadataExt;

use netsetup::LinkCounters;
use runtime::HostPaths;
use runtime::instance::State;

use super::{Network, Source, Traffic};

/// The host's end of a pair receives what the container sends. Links without an end here (MACVLAN, IPVLAN, those moved in)
/// are counted by the kernel in the container's namespace, whose root can at most delete them.
pub(super) fn network(state: &State, paths: &HostPaths) -> Option<Network> {
    if !state.links.is_empty() {
        let counters = netsetup::link_counters(&state.links).ok()?;
        let all = counters.iter().map(|counters| (swapped_in(counters), swapped_out(counters)));
        return Some(total(Source::HostLinks, all));
    }
    let namespace = |of: &str| fs::metadata(paths.proc(&format!("{of}/ns/net"))).map(|found| found.ino());
    let leader = state.leader.pid.to_string();
    if namespace(&leader).ok()? == namespace("self").ok()? {
        return None;
    }
    let text = fs::read_to_string(paths.proc(&format!("{leader}/net/dev"))).ok()?;
    Some(total(Source::Namespace, text.lines().filter_map(line)))
}

fn swapped_in(counters: &LinkCounters) -> Traffic {
    let LinkCounters { tx_bytes, tx_packets, tx_errors, tx_dropped, .. } = *counters;
    Traffic { bytes: tx_bytes, packets: tx_packets, errors: tx_errors, drops: tx_dropped }
}

fn swapped_out(counters: &LinkCounters) -> Traffic {
    let LinkCounters { rx_bytes, rx_packets, rx_errors, rx_dropped, .. } = *counters;
    Traffic { bytes: rx_bytes, packets: rx_packets, errors: rx_errors, drops: rx_dropped }
}

fn total(source: Source, all: impl Iterator<Item = (Traffic, Traffic)>) -> Network {
    all.fold(Network { source, receive: Traffic::default(), transmit: Traffic::default() }, |mut sum, one| {
        add(&mut sum.receive, one.0);
        add(&mut sum.transmit, one.1);
        sum
    })
}

fn add(sum: &mut Traffic, one: Traffic) {
    sum.bytes += one.bytes;
    sum.packets += one.packets;
    sum.errors += one.errors;
    sum.drops += one.drops;
}

/// A line of /proc/PID/net/dev: bytes, packets, errs and drop received, four more, and the same sent. The loopback link is
/// none.
fn line(line: &str) -> Option<(Traffic, Traffic)> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    let traffic = |at: usize| {
        let [bytes, packets, errors, drops] = *numbers.get(at..at + 4)? else { return None };
        Some(Traffic { bytes, packets, errors, drops })
    };
    (name.trim() != "lo").then_some((traffic(0)?, traffic(8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_sends_what_the_container_receives() {
        let counters = LinkCounters { rx_bytes: 1, tx_bytes: 2, rx_dropped: 3, ..LinkCounters::default() };
        let one = (swapped_in(&counters), swapped_out(&counters));
        let both = total(Source::HostLinks, [one, one].into_iter());
        assert_eq!((both.receive.bytes, both.transmit.bytes, both.transmit.drops), (4, 2, 6));
    }

    #[test]
    fn lines_of_procfs_are_read_and_the_loopback_link_is_none() {
        let received = line("  mv-eth0: 10 2 1 0 0 0 0 0       20 3 0 4 0 0 0 0").unwrap();
        assert_eq!(received.0, Traffic { bytes: 10, packets: 2, errors: 1, drops: 0 });
        assert_eq!(received.1, Traffic { bytes: 20, packets: 3, errors: 0, drops: 4 });
        assert!(line("    lo: 10 2 1 0 0 0 0 0       20 3 0 4 0 0 0 0").is_none());
        assert!(line(" face |bytes    packets errs drop fifo frame compressed multicast|bytes").is_none());
    }
}
