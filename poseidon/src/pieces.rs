//! A file as a body: read in pieces, as fast as somebody takes them.

use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// The content from the beginning, in pieces of up to `size` bytes; an error is the last of them.
pub fn of_file(file: File, size: usize) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    unfold(Some((Arc::new(file), 0)), move |rest| async move {
        let (file, at) = rest?;
        let source = file.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; size];
            let n = source.read_at(&mut piece, at)?;
            piece.truncate(n);
            Ok(piece)
        });
        match read.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => {
                let next = at + piece.len() as u64;
                Some((Ok(Bytes::from(piece)), Some((file, next))))
            }
            Err(e) => Some((Err(e), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;

    #[tokio::test]
    async fn a_file_comes_whole_and_an_error_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        let pieces = of_file(File::open(&path).unwrap(), 4).map(Result::unwrap);
        assert_eq!(pieces.collect::<Vec<_>>().await, ["0123", "4567", "89"]);
        // A folder can be opened, and not read.
        let pieces = of_file(File::open(dir.path()).unwrap(), 4);
        let pieces: Vec<_> = pieces.collect().await;
        assert!(matches!(&pieces[..], [Err(_)]), "{pieces:?}");
    }
}
