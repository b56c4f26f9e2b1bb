/// What is logged and how.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// A `tracing_subscriber::EnvFilter` directive, `info` for example. None: `info`, and in `--embedded`
    /// mode also one line a record.
    pub level: Option<String>,
    /// None: pretty on a terminal, else JSON.
    pub format: Option<LogFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}
