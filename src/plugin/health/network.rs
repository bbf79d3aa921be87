//! Network interfaces, from `/sys/class/net`.

use super::LIST_LIMIT;
use super::source::Source;
use crate::message::payload::Interface;
use crate::sys::net;

/// Most addresses of one interface.
const ADDRESS_LIMIT: usize = 16;

/// All but the loopback and those that nobody uses. None where there is no list.
pub(super) fn read(source: &Source) -> Option<Vec<Interface>> {
    let names = source.sorted_names("sys/class/net")?;
    let addresses = if source.is_here() {
        net::addresses()
    } else {
        Vec::new()
    };
    let interfaces = names.into_iter().filter_map(|name| {
        let path = format!("sys/class/net/{name}");
        // ARPHRD_LOOPBACK; where the type cannot be read, the name tells.
        let kind: Option<u32> = source.number(&format!("{path}/type"));
        if kind == Some(772) || name == "lo" {
            return None;
        }
        let count = |what: &str| source.number::<u64>(&format!("{path}/statistics/{what}"));
        let up = is_up(source, &path);
        // An interface that does not count (or a file that is none, such as bonding_masters) is left out.
        let (received, sent) = (count("rx_bytes")?, count("tx_bytes")?);
        let own = |(owner, _): &&(String, _)| *owner == name;
        // The kernel makes some that nobody uses (ifb0, sit0, dummy0). A real port without a cable stays.
        let is_idle = !up
            && received == 0
            && sent == 0
            && !addresses.iter().any(|entry| own(&entry))
            && !source.exists(&format!("{path}/device"));
        if is_idle {
            return None;
        }
        Some(Interface {
            rx_bytes: Some(received),
            tx_bytes: Some(sent),
            rx_errors: count("rx_errors"),
            tx_errors: count("tx_errors"),
            up: Some(up),
            addresses: addresses
                .iter()
                .filter(own)
                .take(ADDRESS_LIMIT)
                .map(|(_, address)| address.to_string())
                .collect(),
            name,
        })
    });
    Some(interfaces.take(LIST_LIMIT).collect())
}

fn is_up(source: &Source, path: &str) -> bool {
    match source.word(&format!("{path}/operstate")).as_deref() {
        Some("up") => true,
        // Tunnels and PPP do not say: then it counts that somebody has switched it on.
        Some("unknown") => source.word(&format!("{path}/flags")).is_some_and(|flags| {
            let digits = flags.trim_start_matches("0x");
            u32::from_str_radix(digits, 16).is_ok_and(|flags| flags & 1 == 1)
        }),
        _ => false,
    }
}
