//! A piece of the time of one instance: all its series, as they are written to the store.

use std::collections::BTreeMap;

/// Most points in a chunk.
pub const MAX_POINTS: usize = 48;

/// One series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// In what it is measured.
    pub unit: String,
    /// A number for each step; NaN where nothing is known.
    pub points: Vec<f32>,
}

/// All series, by name.
pub type All = BTreeMap<String, Series>;

/// For each series: the lengths and bytes of name and unit, the number of points, the points.
pub fn write(all: &All) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        let text = &text.as_bytes()[..text.len().min(255)];
        bytes.push(u8::try_from(text.len()).unwrap_or(0));
        bytes.extend_from_slice(text);
    };
    for (name, series) in all {
        text(&mut bytes, name);
        text(&mut bytes, &series.unit);
        let points = &series.points[..series.points.len().min(MAX_POINTS)];
        bytes.push(u8::try_from(points.len()).unwrap_or(0));
        for point in points {
            bytes.extend_from_slice(&point.to_le_bytes());
        }
    }
    bytes
}

/// The reverse; of damaged bytes it is what stands before the damage.
pub fn read(bytes: &[u8]) -> All {
    let mut all = All::new();
    let mut rest = bytes;
    while let Some((name, series)) = one(&mut rest) {
        all.insert(name, series);
    }
    all
}

fn one(rest: &mut &[u8]) -> Option<(String, Series)> {
    let name = text(rest)?;
    let unit = text(rest)?;
    let count = usize::from(rest.split_off_first().copied()?);
    let bytes = rest.split_off(..count * 4)?;
    let points = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|four| f32::from_le_bytes(*four))
        .collect();
    Some((name, Series { unit, points }))
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::from(rest.split_off_first().copied()?);
    let bytes = rest.split_off(..length)?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// What `newer` knows goes over what `older` knew.
pub fn merge(older: &mut All, newer: All) {
    for (name, new) in newer {
        let old = older.entry(name).or_default();
        old.unit = new.unit;
        if old.points.len() < new.points.len() {
            old.points.resize(new.points.len(), f32::NAN);
        }
        for (old, new) in old.points.iter_mut().zip(new.points) {
            if !new.is_nan() {
                *old = new;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_back_whole_or_as_far_as_they_go() {
        let mut all = All::new();
        for (name, unit, points) in [
            ("load", "share", vec![0.25, f32::NAN, 0.5]),
            ("disk:/überall", "", vec![]),
        ] {
            let (unit, points) = (unit.to_owned(), points);
            all.insert(name.to_owned(), Series { unit, points });
        }
        let bytes = write(&all);
        let back = read(&bytes);
        assert_eq!(format!("{back:?}"), format!("{all:?}"));
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).len() < 2);
        }
        let mut older = back;
        let newer = vec![f32::NAN, 7.0, f32::NAN, 8.0];
        let (unit, points) = ("share".to_owned(), newer);
        merge(
            &mut older,
            All::from([("load".to_owned(), Series { unit, points })]),
        );
        assert_eq!(older["load"].points, [0.25, 7.0, 0.5, 8.0]);
    }
}
