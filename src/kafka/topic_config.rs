//! Reads the settings of topics that decide whether a record can be written, in the background.

use super::{admin::Admin, metadata::Topics};
use crate::produce::TopicName;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::mpsc;

/// Topics that are asked about at once.
const AT_ONCE: usize = 50;

/// Reads the configuration of every topic that the cluster confirms, until the sender is gone. Where the broker
/// does not let us read it, the service's own limit stands.
pub async fn read(admin: Arc<Admin>, topics: Arc<Topics>, mut confirmed: mpsc::Receiver<TopicName>) {
    let mut names = Vec::new();
    while confirmed.recv_many(&mut names, AT_ONCE).await > 0 {
        // librdkafka refuses a question that has a name twice
        names.sort_unstable();
        names.dedup();
        let mut configs: HashMap<_, _> = admin.describe_topic_configs(&names).await.into_iter().collect();
        for name in names.drain(..) {
            topics.set_config(&name, configs.remove(&name));
        }
    }
}
