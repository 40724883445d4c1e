//! The broker as its owner sees it: start, ask, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use uuid::Uuid;

use crate::admin;
use crate::core::{Core, NO_DATA_FOLDER};
use crate::faults::{FaultHandle, Injection};
use crate::options::{BrokerError, Options};
use crate::recovery;
use crate::security::{Acl, tls};
use crate::server;
use crate::stats::Stats;
use crate::topic_config::TopicConfig;
use crate::transactions;

/// An interval of zero would keep a core busy.
const SHORTEST_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// A running broker. It serves until [`Broker::stop`], or until it is dropped.
#[derive(Debug)]
pub struct Broker {
    core: Arc<Core>,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
}

impl Broker {
    /// Listens and begins to serve on the current tokio runtime.
    ///
    /// # Errors
    /// [`BrokerError::Listen`] where the address is busy or not of this host,
    /// [`BrokerError::Security`] where certificates and key can not be used, [`BrokerError::Data`] where
    /// the data folder is in use, damaged, or can not be written.
    pub async fn start(options: Options) -> Result<Self, BrokerError> {
        let (listener, address) = bind(options.listen).await?;
        let admin = match options.admin {
            Some(admin) => Some(bind(admin).await?),
            None => None,
        };
        let tls = options.security.tls.as_ref().map(tls::acceptor).transpose();
        let tls = tls.map_err(|error| BrokerError::Security(error.to_string()))?;
        let core = match options.data.clone() {
            Some(data) => recovery::open(options, data, Arc::default()).await?,
            None => Arc::new(Core::new(options, Uuid::new_v4().simple().to_string(), None)),
        };
        core.transactions.watch();
        core.tasks.spawn(server::accept(Arc::clone(&core), listener, tls));
        let admin_address = admin.map(|(listener, admin_address)| {
            core.tasks.spawn(admin::serve(Arc::clone(&core), listener));
            if !admin_address.ip().is_loopback() {
                tracing::warn!(
                    %admin_address,
                    "the admin port is open to other hosts, and who reaches it may break the broker at will"
                );
            }
            admin_address
        });
        core.tasks.spawn(watch_retention(Arc::clone(&core)));
        core.tasks.spawn(watch_compaction(Arc::clone(&core)));
        core.tasks.spawn(transactions::watch_timeouts(Arc::clone(&core)));
        tracing::info!(
            %address,
            security_protocol = core.options.security.protocol(),
            retention_bytes = core.options.retention_bytes,
            data = core.options.data.as_ref().map(|data| tracing::field::display(data.folder.display())),
            "devbroker is up: an embedded Kafka-protocol broker for development and tests; one process, \
             no replication, in memory and in the data folder if one is named, never for production"
        );
        Ok(Self {
            core,
            address,
            admin_address,
        })
    }

    /// Where it listens, with the port that was really taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin port listens, if [`Options::admin`] asked for one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Creates a topic with default settings. With a data folder it is in the kernel's cache when this
    /// returns, and on the disk when the next request that changes something was answered.
    ///
    /// # Errors
    /// [`BrokerError::Topic`] where the name is not a topic name, or is taken.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), BrokerError> {
        let created = self
            .core
            .topics
            .create(name, partitions, TopicConfig::default(), false);
        created.map(drop).map_err(|refusal| BrokerError::Topic {
            topic: name.to_owned(),
            reason: refusal.message,
        })
    }

    /// How many partitions a topic has; `None` where there is no such topic.
    pub fn partition_count(&self, topic: &str) -> Option<i32> {
        let topic = self.core.topics.get(topic)?;
        Some(topic.partition_count())
    }

    /// Adds an access rule; it holds from the next request on. A rule that exists stays as it is.
    ///
    /// # Errors
    /// [`BrokerError::Security`] where [`Security::authorization`](crate::security::Security) is
    /// `None`, or where there are too many rules.
    pub fn add_acl(&self, acl: Acl) -> Result<(), BrokerError> {
        let added = self.core.guard.add_acl(acl);
        added.map_err(|error| BrokerError::Security(error.to_string()))
    }

    /// Takes an access rule out; returns whether it was there.
    ///
    /// # Errors
    /// [`BrokerError::Security`] where [`Security::authorization`](crate::security::Security) is
    /// `None`.
    pub fn remove_acl(&self, acl: &Acl) -> Result<bool, BrokerError> {
        let removed = self.core.guard.remove_acls(|known| known == acl);
        let removed = removed.map_err(|error| BrokerError::Security(error.to_string()))?;
        Ok(!removed.is_empty())
    }

    /// The broker's counters as they stand.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Lets something go wrong, until the handle is dropped:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), devbroker::BrokerError> {
    /// # use devbroker::{ApiKey, Broker, Fault, Options, ResponseError};
    /// # let broker = Broker::start(Options::default()).await?;
    /// let not_here = Fault::AnswerError(ResponseError::NotCoordinator);
    /// let fault = broker.inject(not_here.on(ApiKey::OffsetCommit).of_group("payment").times(2))?;
    /// // ... the code under test commits ...
    /// println!("it was refused {} times", fault.struck());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BrokerError::Fault`] where the injection means nothing, or 1,000 faults are known already.
    pub fn inject(&self, injection: Injection) -> Result<FaultHandle, BrokerError> {
        FaultHandle::inject(&self.core.faults, injection).map_err(|reason| BrokerError::Fault { reason })
    }

    /// Removes all faults, whoever injected them.
    pub fn clear_faults(&self) {
        self.core.faults.clear();
    }

    /// Makes the coordinator forget a member of a group, as if it had lost its memory of it: the
    /// others rebalance, and the member hears UNKNOWN_MEMBER_ID. Returns whether it was known.
    pub async fn forget_member(&self, group: &str, member_id: &str) -> bool {
        self.core.groups.forget_member(group, member_id).await
    }

    /// Makes the coordinator forget all members of a group and its generation; committed offsets
    /// stay. Returns whether the group was known.
    pub async fn forget_group(&self, group: &str) -> bool {
        self.core.groups.forget_members(group).await
    }

    /// Moves the broker's clock forward, monotonic and wall time alike, as if `step` had passed at
    /// once: session time-outs, rebalance time-outs and `retention.ms` that end within it are acted
    /// on now. Everybody who should have been heard within `step` is late, also a member that is
    /// well and whose next heartbeat is on its way. Long polls and the silence that a connection
    /// may keep are measured in real time and do not move.
    pub fn advance_clock(&self, step: Duration) {
        self.core.advance_clock(step);
    }

    /// Lets the disk of the data folder be full, until [`Broker::free_disk`]: nothing more can be
    /// written to it, and the broker answers as it does when that happens.
    ///
    /// # Errors
    /// [`BrokerError::Fault`] where there is no data folder.
    pub fn fill_disk(&self) -> Result<(), BrokerError> {
        self.set_disk(true)
    }

    /// Lets the disk of the data folder have room again.
    ///
    /// # Errors
    /// [`BrokerError::Fault`] where there is no data folder.
    pub fn free_disk(&self) -> Result<(), BrokerError> {
        self.set_disk(false)
    }

    fn set_disk(&self, full: bool) -> Result<(), BrokerError> {
        if self.core.fill_disk(full) {
            return Ok(());
        }
        Err(BrokerError::Fault {
            reason: NO_DATA_FOLDER.to_owned(),
        })
    }

    /// Closes all connections and returns when every task of the broker has ended, and everything in the
    /// data folder is on the disk. Without a data folder, records and offsets are gone with it.
    pub async fn stop(self) {
        self.core.stopping.cancel();
        self.core.tasks.close();
        self.core.tasks.wait().await;
        if let Some(storage) = self.core.storage.clone()
            && let Err(error) = tokio::task::spawn_blocking(move || storage.close()).await
        {
            tracing::error!(%error, "closing the data folder failed");
        }
        tracing::info!(address = %self.address, "devbroker stopped");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.core.stopping.cancel();
        if let Some(storage) = &self.core.storage {
            storage.abandon();
        }
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let failed = |source| BrokerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let taken = listener.local_addr().map_err(failed)?;
    Ok((listener, taken))
}

async fn watch_retention(core: Arc<Core>) {
    while next_check(&core).await {
        core.enforce_retention();
    }
}

/// Apart from retention, which must not wait for it: a pass over a large log takes its time.
async fn watch_compaction(core: Arc<Core>) {
    while next_check(&core).await {
        let compacting = Arc::clone(&core);
        if let Err(error) = tokio::task::spawn_blocking(move || compacting.compact()).await {
            tracing::error!(%error, "a compaction pass failed; the log is as it was before");
        }
    }
}

/// False when the broker stops instead.
async fn next_check(core: &Core) -> bool {
    let interval = core.options.retention_check_interval.max(SHORTEST_CHECK_INTERVAL);
    tokio::select! {
        () = core.stopping.cancelled() => false,
        () = core.clock.sleep_until(core.clock.now() + interval) => true,
    }
}
