//! Events into a journal, and out of it again.
