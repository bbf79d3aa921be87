//! Deletes blobs that nothing refers to.

use super::Blobs;
use crate::server::App;
use crate::store::StoreError;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

/// Hashes that one call to the store looks up.
const LOOK_UP: usize = 500;
/// A manifest that a job names is read up to so many bytes for the blobs that it names.
const MANIFEST_LIMIT: u64 = 64 << 20;

/// Looks at all blobs as they are at `now`: those that a kept revision, named data, an open job or a running batch
/// refers to stay.
pub async fn sweep(app: &Arc<App>, now: SystemTime) -> Result<usize, String> {
    let failed = |e: std::io::Error| format!("the folder of blobs: {e}");
    let all = app.blobs.clone();
    let old = blocking(move || all.old(now)).await?.map_err(failed)?;
    if old.is_empty() {
        return Ok(0);
    }
    let mut wanted = HashSet::new();
    for some in old.chunks(LOOK_UP) {
        let some = some.to_vec();
        let found = app.db.call(move |store| store.wanted_blobs(&some)).await;
        wanted.extend(found.map_err(|e: StoreError| e.to_string())?);
    }
    let app = app.clone();
    blocking(move || {
        let mut read = HashSet::new();
        let mut keep = |request: &str| wanted.extend(named_in(&app.blobs, request, &mut read));
        // A member of a batch may have its job in an hour.
        app.batches.each_request(&mut keep);
        app.jobs.each_request(&mut keep);
        app.blobs.sweep(&old, &wanted, now)
    })
    .await?
    .map_err(failed)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| e.to_string())
}

/// The blobs that a request names, and those that its manifest names, unless that was `read` already.
fn named_in(blobs: &Blobs, request: &str, read: &mut HashSet<String>) -> Vec<String> {
    let mut named = hashes(request.as_bytes());
    if request.contains("\"manifest\"") {
        for hash in named.clone() {
            // Of the few that such a request names one is the manifest, and no other is likely to hold hashes.
            // Thousands of jobs of one push have the same.
            if read.insert(hash.clone())
                && let Ok(text) = blobs.read(&hash, MANIFEST_LIMIT)
            {
                named.extend(hashes(&text));
            }
        }
    }
    named
}

/// Whatever looks like the hash of a blob: one too many does no harm.
fn hashes(text: &[u8]) -> Vec<String> {
    text.split(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        .filter(|part| part.len() == 64)
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_and_its_manifest_name_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::start(dir.path().join("blobs"), 1 << 20, 1 << 20).unwrap();
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let manifest = blobs
            .put(format!("[{{\"ref\":\"sha256:{one}\"}}]").as_bytes())
            .unwrap();
        let request = format!(r#"{{"manifest":{{"ref":"sha256:{manifest}"}},"x":"{two}"}}"#);
        let mut read = HashSet::new();
        let mut named = |request: &str| named_in(&blobs, request, &mut read);
        assert_eq!(named(&request), [manifest.clone(), two.clone(), one]);
        // The same manifest is not read again in the same round.
        assert_eq!(named(&request), [manifest, two.clone()]);
        let request = format!(r#"{{"ref":"sha256:{two}","other":"{two}f"}}"#);
        assert_eq!(named(&request), [two]);
    }
}
