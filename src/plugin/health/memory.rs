//! Memory, from `/proc/meminfo`.

use super::source::Source;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub total: u64,
    pub available: u64,
}

impl Memory {
    pub fn used(self) -> u64 {
        self.total.saturating_sub(self.available)
    }
}

#[derive(Debug, Default)]
pub(super) struct Memories {
    pub physical: Option<Memory>,
    /// Physical memory and swap together.
    pub with_swap: Option<Memory>,
}

pub(super) fn read(source: &Source) -> Memories {
    let Some(text) = source.text("proc/meminfo") else {
        return Memories::default();
    };
    let bytes = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
        kib.checked_mul(1024)
    };
    let available = bytes("MemAvailable").or_else(|| {
        // Before Linux 3.14. Some of this cannot be freed, but there is no better guess.
        let free = bytes("MemFree")?;
        Some(free + bytes("Buffers").unwrap_or(0) + bytes("Cached").unwrap_or(0))
    });
    let physical = match (bytes("MemTotal"), available) {
        (Some(total), Some(available)) if total > 0 => Some(Memory {
            total,
            available: available.min(total),
        }),
        _ => None,
    };
    let with_swap = physical.and_then(|memory| {
        let (total, free) = (bytes("SwapTotal")?, bytes("SwapFree")?);
        Some(Memory {
            total: memory.total + total,
            available: memory.available + free.min(total),
        })
    });
    Memories {
        physical,
        with_swap,
    }
}
