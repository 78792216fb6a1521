//! Other firewalls in the way, made by nft(8) and found by netlink.

mod common;

use common::{on_host, sh};
use netsetup::foreign_forward_drops;

#[test]
fn only_chains_that_drop_forwarded_packets_by_policy_are_named() {
    on_host(|| {
        assert_eq!(foreign_forward_drops().unwrap(), Vec::<String>::new());
        sh("nft 'table inet filter {
                chain input { type filter hook input priority 0; policy drop; }
                chain forward { type filter hook forward priority 0; policy drop; }
                chain helper { accept; }
            }
            table ip6 strict { chain through { type filter hook forward priority 5; policy drop; }; }
            table ip open { chain through { type filter hook forward priority 5; policy accept; }; }
            table inet nixrun { chain forward { type filter hook forward priority 0; policy drop; }; }'");
        let mut found = foreign_forward_drops().unwrap();
        found.sort();
        assert_eq!(found, ["inet filter forward", "ip6 strict through"]);
    });
}
