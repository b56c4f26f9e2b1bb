//! Reads the settings of topics that decide whether a record can be written, in the background.

use super::{admin::Admin, metadata::Topics};
use crate::produce::TopicName;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Reads the configuration of every topic that the cluster confirms, until the sender is gone. Where the broker
/// does not let us read it, the service's own limit stands.
pub async fn read(admin: Arc<Admin>, topics: Arc<Topics>, mut confirmed: mpsc::Receiver<TopicName>) {
    while let Some(name) = confirmed.recv().await {
        if let Some(config) = admin.describe_topic_config(&name).await {
            topics.set_config(&name, config);
        }
    }
}
