//! The composition root.

use crate::config::Config;

/// Serves until it is told to stop. Blocks; builds the runtime itself.
pub fn run(_config: Config) -> Result<(), Box<dyn std::error::Error>> {
    Ok(())
}
