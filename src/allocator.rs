//! The memory allocator of the whole process, librdkafka included. A record is allocated on one thread and freed on
//! another, for which glibc's locks its arenas: measured in `docs/PERFORMANCE.md`.
#![expect(unsafe_code, reason = "jemalloc reads its settings from an exported symbol")]

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Few arenas and a short delay before memory that was freed goes back to the system: after a burst the process
/// is to be small again. What is large (more than a mebibyte: large bodies) goes back at once: each arena would keep as
/// much for itself. librdkafka's buffers are of a mebibyte at most, mostly, and asked for time and again.
const SETTINGS: &[u8; 74] = b"narenas:2,oversize_threshold:1310720,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

// SAFETY: jemalloc declares `const char *malloc_conf`, and nothing else defines that name. A reference to an array
// is one pointer, and the text ends with NUL.
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8; SETTINGS.len()] = SETTINGS;
