//! File systems that can fill up, from the list of mounts.

use super::LIST_LIMIT;
use super::source::Source;
use crate::message::payload::FileSystem;
use crate::sys::space;

/// Always full, and nobody's fault.
const READ_ONLY: [&str; 6] = ["squashfs", "erofs", "cramfs", "romfs", "iso9660", "udf"];
/// On flash or pools of their own, so that their source is no path in /dev.
const WITHOUT_DEVICE: [&str; 7] = [
    "jffs2", "ubifs", "yaffs", "yaffs2", "zfs", "btrfs", "bcachefs",
];

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// `major:minor`: the same for all mounts of one file system.
    device: String,
    point: String,
    kind: String,
    name: String,
}

/// What `df` users care about. None where there is no list of mounts.
pub(super) fn read(source: &Source) -> Option<Vec<FileSystem>> {
    let text = source.text("proc/self/mountinfo")?;
    let file_systems = select(text.lines().filter_map(parse))
        .into_iter()
        .filter_map(|mount| {
            let space = space::space(&source.path(&mount.point))?;
            (space.total > 0).then_some(FileSystem {
                mount: mount.point,
                kind: mount.kind,
                name: mount.name,
                space_total: Some(space.total),
                space_used: Some(space.used),
                space_available: Some(space.available),
            })
        })
        .take(LIST_LIMIT);
    Some(file_systems.collect())
}

/// Each file system once, at the shortest of its mount points; of mounts upon each other, the uppermost.
fn select(mounts: impl Iterator<Item = Mount>) -> Vec<Mount> {
    let mut selected: Vec<Mount> = Vec::new();
    for mount in mounts {
        // What it is mounted over cannot be seen any more, whatever it is.
        selected.retain(|other| other.point != mount.point);
        if !counts(&mount) {
            continue;
        }
        match selected.iter_mut().find(|o| o.device == mount.device) {
            Some(other) if other.point.len() > mount.point.len() => *other = mount,
            Some(_) => {}
            None => selected.push(mount),
        }
    }
    selected
}

fn counts(mount: &Mount) -> bool {
    let kind = mount.kind.as_str();
    if READ_ONLY.contains(&kind) {
        return false;
    }
    // A container's overlays are its own matter; that of the root is what this device writes to.
    if kind == "overlay" || kind == "overlayfs" {
        return mount.point == "/";
    }
    WITHOUT_DEVICE.contains(&kind) || (mount.name.starts_with("/dev/") && kind != "devtmpfs")
}

/// `36 35 98:0 /root /mount options optional... - type source superoptions`
fn parse(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let device = mount.nth(2)?.to_owned();
    let point = unescape(mount.nth(1)?);
    let mut file_system = file_system.split(' ');
    Some(Mount {
        device,
        point,
        kind: file_system.next()?.to_owned(),
        name: unescape(file_system.next()?),
    })
}

/// The kernel writes blanks, tabs, line ends and backslashes as `\040` and so on.
fn unescape(text: &str) -> String {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let code = (first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .filter(|digits| digits.iter().all(|d| (b'0'..b'8').contains(d)))
            .map(|d| d.iter().fold(0_u32, |n, d| n * 8 + u32::from(d - b'0')))
            .and_then(|code| u8::try_from(code).ok());
        if let Some(code) = code {
            out.push(code);
            rest = &after[3..];
        } else {
            out.push(first);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(text: &str) -> Vec<String> {
        let mounts = select(text.lines().filter_map(parse));
        mounts.into_iter().map(|m| m.point).collect()
    }

    #[test]
    fn an_openwrt_router_has_its_overlay_and_no_rom() {
        let mounts = "\
15 1 31:4 / /rom ro,relatime - squashfs /dev/root ro
16 21 0:14 / /proc rw,nosuid - proc proc rw
17 21 0:15 / /sys rw,nosuid - sysfs sysfs rw
18 21 0:17 / /tmp rw,nosuid - tmpfs tmpfs rw
20 15 31:5 / /overlay rw,noatime - jffs2 /dev/mtdblock5 rw
21 1 0:20 / / rw,noatime - overlay overlayfs:/overlay rw,lowerdir=/,upperdir=/overlay/upper
22 21 0:6 / /dev rw - tmpfs tmpfs rw
23 21 8:1 / /mnt/usb\\040disk rw shared:1 master:2 - ext4 /dev/sda1 rw
24 21 0:30 / /mnt/nas rw - nfs4 nas:/export rw
25 21 0:31 / /mnt/win rw - cifs //nas/share rw
26 21 0:32 / /mnt/ssh rw - fuse.sshfs user@host:/ rw";
        assert_eq!(points(mounts), ["/overlay", "/", "/mnt/usb disk"]);
        let ubi = "20 15 0:19 / /overlay rw - ubifs /dev/ubi0_1 rw\n21 1 0:20 / / rw - overlay overlayfs:/overlay rw";
        assert_eq!(points(ubi), ["/overlay", "/"]);
    }

    #[test]
    fn a_file_system_is_told_once_at_its_shortest_mount_point() {
        let mounts = "\
1 0 8:1 /srv /var/lib/very/long rw - ext4 /dev/sda1 rw
2 0 8:1 / / rw - ext4 /dev/sda1 rw
3 0 8:1 /home /home rw - ext4 /dev/sda1 rw
4 0 8:2 / /data rw - ext4 /dev/sdb rw
5 0 0:9 / /data rw - tmpfs tmpfs rw
6 0 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
7 0 0:6 / /dev rw - devtmpfs /dev/x rw
8 0 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro
garbage
9 0 8:3 / - ext4";
        assert_eq!(points(mounts), ["/"]);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c\011"), "/a b\\c\t");
        assert_eq!(unescape(r"/a\9\04\777\"), r"/a\9\04\777\");
    }
}
