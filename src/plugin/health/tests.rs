use super::*;
use std::path::Path;
use std::process::Command;

/// A device as a tree of files.
struct Device(tempfile::TempDir);

impl Device {
    fn new(files: &[(&str, &str)]) -> Self {
        let device = Self(tempfile::tempdir().unwrap());
        for (path, content) in files {
            device.put(path, content);
        }
        device
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn health(&self) -> Health {
        Health::with_root(self.0.path())
    }
}

/// As an MT7621 looks under `OpenWrt`.
fn router() -> Device {
    let device = Device::new(&[
        ("proc/uptime", "81234.56 160000.11\n"),
        ("proc/loadavg", "0.10 0.25 0.05 1/70 4242\n"),
        (
            "proc/meminfo",
            "MemTotal:         124524 kB\nMemFree:           60000 kB\nMemAvailable:      70000 kB\n\
             Buffers:            4000 kB\nCached:            14000 kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\n",
        ),
        (
            "proc/stat",
            "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 50 0 50 400 0 0 0 0 0 0\ncpu1 50 0 50 400 0 0 0 0 0 0\nintr 1 2 3\n",
        ),
        ("proc/sys/fs/file-nr", "544\t0\t11861\n"),
        ("proc/1/stat", ""),
        ("proc/77/stat", ""),
        ("proc/net/dev", ""),
        (
            "proc/self/mountinfo",
            "15 1 31:4 / /rom ro - squashfs /dev/root ro\n21 1 0:20 / / rw - overlay overlayfs:/overlay rw\n\
             24 21 0:30 / /gone rw - ext4 /dev/sda1 rw\n",
        ),
        ("sys/class/net/lo/type", "772\n"),
        ("sys/class/net/bonding_masters", "\n"),
        ("sys/class/net/eth10/device/vendor", ""),
        ("sys/class/thermal/thermal_zone0/temp", "48900\n"),
        ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
        ("sys/class/thermal/thermal_zone1/temp", "nonsense\n"),
        ("sys/class/thermal/cooling_device0/type", "fan\n"),
        ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
        ("sys/class/hwmon/hwmon0/temp1_input", "48900\n"),
        ("sys/class/hwmon/hwmon1/name", "mt7915_phy0\n"),
        ("sys/class/hwmon/hwmon1/temp1_input", "-5450\n"),
        ("sys/class/hwmon/hwmon1/temp2_input", "65261000\n"),
        ("sys/class/hwmon/hwmon1/temp3_input", "51000\n"),
        ("sys/class/hwmon/hwmon1/temp3_label", "radio\n"),
    ]);
    for (name, state, flags, bytes) in [
        ("eth10", "down", "0x1003", "0"),
        ("eth2", "up", "0x1003", "18446744073709551615"),
        ("ifb0", "down", "0x82", "0"),
        ("wg0", "unknown", "0x91", "7"),
        ("tun0", "unknown", "0x90", "7"),
    ] {
        let put = |what: &str, content: &str| {
            device.put(&format!("sys/class/net/{name}/{what}"), content);
        };
        put("operstate", state);
        put("flags", flags);
        for what in ["rx_bytes", "tx_bytes", "rx_errors", "tx_errors"] {
            put(&format!("statistics/{what}"), &format!("{bytes}\n"));
        }
    }
    device
}

#[test]
fn a_router_is_read() {
    let device = router();
    let mut health = device.health();
    // Two of ten ticks busy on one processor, all ten on the other.
    device.put(
        "proc/stat",
        "cpu  112 0 100 808 0 0 0 0 0 0\ncpu0 52 0 50 407 1 0 0 0 0 0\ncpu1 60 0 50 400 0 0 0 0 0 0\n",
    );
    let beat = health.read();
    assert_eq!(beat.uptime, Some(81234.0));
    assert_eq!(beat.load_average, Some(vec![0.1, 0.25, 0.05]));
    assert_eq!(beat.system_load, Some(0.6));
    assert_eq!(beat.processor_load, Some(vec![0.2, 1.0]));
    assert_eq!(beat.physical_memory_total, Some(124_524 * 1024));
    assert_eq!(beat.physical_memory_available, Some(70_000 * 1024));
    assert_eq!(beat.physical_memory_used, Some(54_524 * 1024));
    assert_eq!(beat.virtual_memory_total, beat.physical_memory_total);
    assert_eq!(beat.file_descriptor_total, Some(11_861));
    assert_eq!(beat.file_descriptor_used, Some(544));
    assert_eq!(beat.processes, Some(2));
    let file_systems = beat.file_systems.unwrap();
    assert_eq!(file_systems.len(), 1);
    assert_eq!(file_systems[0].mount, "/");
    assert_eq!(file_systems[0].name, "overlayfs:/overlay");
    let interfaces = beat.interfaces.unwrap();
    let states: Vec<(&str, bool)> = interfaces
        .iter()
        .map(|i| (i.name.as_str(), i.up.unwrap()))
        .collect();
    assert_eq!(
        states,
        [
            ("eth2", true),
            ("eth10", false),
            ("tun0", false),
            ("wg0", true)
        ]
    );
    assert_eq!(interfaces[0].rx_bytes, Some(u64::MAX));
    let temperatures: Vec<(String, f64)> = beat
        .temperatures
        .unwrap()
        .into_iter()
        .map(|t| (t.label, t.celsius))
        .collect();
    assert_eq!(
        temperatures,
        [
            ("cpu-thermal".to_owned(), 48.9),
            ("mt7915_phy0".to_owned(), -5.5),
            ("mt7915_phy0 radio".to_owned(), 51.0)
        ]
    );
}

#[test]
fn what_is_not_there_is_absent() {
    assert_eq!(Device::new(&[]).health().read(), Heartbeat::default());
    let garbage = Device::new(&[
        ("proc/uptime", "soon"),
        ("proc/loadavg", "0.1 NaN 0.3"),
        (
            "proc/meminfo",
            "MemTotal: many kB\nMemFree: -1 kB\nSwapTotal: 99999999999999999999 kB\n",
        ),
        ("proc/stat", "cpu  1 2 x\ncpu0\n"),
        ("proc/sys/fs/file-nr", "1 2\n"),
        ("sys/class/thermal/thermal_zone0/temp", ""),
    ]);
    garbage.put("proc/version", "\u{fffd}");
    assert_eq!(garbage.health().read(), Heartbeat::default());
}

#[test]
fn an_old_kernel_without_available_memory_is_estimated() {
    let device = Device::new(&[(
        "proc/meminfo",
        "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 20 kB\nCached: 80 kB\nSwapTotal: 50 kB\nSwapFree: 10 kB\n",
    )]);
    let beat = device.health().read();
    assert_eq!(beat.physical_memory_available, Some(200 * 1024));
    assert_eq!(beat.virtual_memory_used, Some(840 * 1024));
}

#[test]
fn loads_need_something_to_compare() {
    let device = Device::new(&[("proc/stat", "cpu 10 0 0 90\ncpu0 10 0 0 90\n")]);
    let mut health = device.health();
    let loads = |health: &mut Health| {
        let beat = health.read();
        (beat.system_load, beat.processor_load)
    };
    assert_eq!(loads(&mut health), (None, None));
    device.put(
        "proc/stat",
        "cpu 20 0 0 180\ncpu0 15 0 0 95\ncpu1 5 0 0 85\n",
    );
    assert_eq!(loads(&mut health), (Some(0.1), None));
    device.put(
        "proc/stat",
        "cpu 20 0 0 190\ncpu0 15 0 0 100\ncpu1 5 0 0 90\n",
    );
    assert_eq!(loads(&mut health), (Some(0.0), Some(vec![0.0, 0.0])));
    // Counters that began anew.
    device.put("proc/stat", "cpu 1 0 0 1\ncpu0 1 0 0 1\n");
    assert_eq!(loads(&mut health), (None, None));
    device.put("proc/stat", "cpu 2 0 0 2\ncpu0 2 0 0 2\n");
    assert_eq!(loads(&mut health), (Some(0.5), Some(vec![0.5])));
}

#[test]
fn lists_are_bounded() {
    let device = Device::new(&[]);
    for n in 0..100 {
        for what in ["rx_bytes", "tx_bytes", "rx_errors", "tx_errors"] {
            device.put(&format!("sys/class/net/veth{n}/statistics/{what}"), "1");
        }
        device.put(&format!("sys/class/thermal/thermal_zone{n}/temp"), "20000");
    }
    let beat = device.health().read();
    assert_eq!(beat.interfaces.unwrap().len(), LIST_LIMIT);
    let temperatures = beat.temperatures.unwrap();
    assert_eq!(temperatures.len(), LIST_LIMIT);
    assert_eq!(temperatures[1].label, "thermal 2");
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether two readings of something that moves are of the same thing.
fn near(a: u64, b: u64, slack: u64) -> bool {
    a.abs_diff(b) <= slack
}

#[test]
fn this_device_is_read_as_its_own_programs_see_it() {
    let mut health = Health::new();
    let beat = health.read();
    let text = |path: &str| std::fs::read_to_string(path).unwrap();
    let uptime: f64 = text("/proc/uptime")
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((beat.uptime.unwrap() - uptime).abs() < 60.0);
    let load: f64 = text("/proc/loadavg")
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((beat.load_average.unwrap()[0] - load).abs() < 5.0);
    assert!(beat.processes.unwrap() > 1);
    assert!(beat.file_descriptor_used.unwrap() > 0);
    if let Some(free) = output("free", &["-b"]) {
        let row = |name: &str| -> Vec<u64> {
            let line = free.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace()
                .skip(1)
                .map(|n| n.parse().unwrap())
                .collect()
        };
        let (memory, swap) = (row("Mem:"), row("Swap:"));
        let slack = memory[0] / 5;
        assert_eq!(beat.physical_memory_total.unwrap(), memory[0]);
        assert!(near(
            beat.physical_memory_available.unwrap(),
            memory[5],
            slack
        ));
        assert!(near(
            beat.physical_memory_used.unwrap(),
            memory[0] - memory[5],
            slack
        ));
        assert_eq!(beat.virtual_memory_total.unwrap(), memory[0] + swap[0]);
    }
    if let Some(df) = output("df", &["-B1", "--output=target,size,used,avail"]) {
        for file_system in beat.file_systems.unwrap() {
            let is_it = |line: &&str| line.split_whitespace().next() == Some(&file_system.mount);
            let line = df.lines().find(is_it).expect("df knows it as well");
            let row: Vec<u64> = line
                .split_whitespace()
                .skip(1)
                .map(|n| n.parse().unwrap())
                .collect();
            let slack = row[0] / 10 + (1 << 30);
            assert_eq!(file_system.space_total, Some(row[0]));
            assert!(near(file_system.space_used.unwrap(), row[1], slack));
            assert!(near(file_system.space_available.unwrap(), row[2], slack));
        }
    }
    assert!(beat.interfaces.unwrap().iter().all(|i| i.name != "lo"));
    assert!(agent_rss().unwrap() > 100_000);
    assert!(Path::new("/proc/self").exists());
}

#[test]
fn an_independent_reader_agrees() {
    let beat = Health::new().read();
    let system = sysinfo::System::new_with_specifics(
        sysinfo::RefreshKind::nothing().with_memory(sysinfo::MemoryRefreshKind::everything()),
    );
    assert_eq!(beat.physical_memory_total, Some(system.total_memory()));
    let available = system.available_memory();
    let slack = system.total_memory() / 5;
    assert!(near(
        beat.physical_memory_available.unwrap(),
        available,
        slack
    ));
    let uptime = sysinfo::System::uptime() as f64;
    assert!((beat.uptime.unwrap() - uptime).abs() < 60.0);
    let load = sysinfo::System::load_average().one;
    assert!((beat.load_average.unwrap()[0] - load).abs() < 5.0);
}
