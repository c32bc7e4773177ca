//! The broker's listener with TLS and SCRAM-SHA-512: its keys, its one user, and what a client needs to be let in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::edge::Edge;

/// It may do everything.
pub const USER: &str = "edge";
pub const PASSWORD: &str = "a good password";

/// Of the key store; it never leaves the broker's directory.
const STORE_PASSWORD: &str = "only-for-tests";

pub struct Secured {
    dir: PathBuf,
    address: SocketAddr,
}

/// How this user of the shared broker comes in, as flags.
pub fn user_flags(user: &str, password: &str) -> Vec<String> {
    let (user, password) = (format!("sasl.username={user}"), format!("sasl.password={password}"));
    let ca = format!("ssl.ca.location={}", crate::shared::broker().secured().ca().display());
    let properties = ["security.protocol=sasl_ssl", "sasl.mechanisms=SCRAM-SHA-512", &user, &password, &ca];
    properties.iter().flat_map(|property| ["--kafka-set".to_owned(), (*property).to_owned()]).collect()
}

/// An edge that comes in as this user of the shared broker, with this password.
pub fn edge_of(name: &str, user: &str, password: &str) -> Edge {
    let broker = crate::shared::broker();
    let secured = broker.secured();
    let mut edge = Edge::new(name, &broker.direct(), &secured.address().to_string());
    edge.flags.extend(user_flags(user, password));
    edge
}

impl Secured {
    /// Makes key, certificate and `ca.pem` in `dir`.
    pub fn create(dir: &Path, address: SocketAddr) -> Secured {
        let secured = Secured { dir: dir.to_owned(), address };
        secured.keytool(&[
            "-genkeypair",
            "-keyalg",
            "EC",
            "-dname",
            "CN=127.0.0.1",
            "-validity",
            "2",
            // Signs itself, and so is its own authority.
            "-ext",
            "BasicConstraints:critical=ca:true",
            "-ext",
            "SubjectAlternativeName=ip:127.0.0.1,dns:localhost",
        ]);
        let ca = secured.ca();
        secured.keytool(&["-exportcert", "-rfc", "-file", ca.to_str().expect("a path of UTF-8")]);
        secured
    }

    fn keytool(&self, words: &[&str]) {
        let mut command = Command::new("keytool");
        // Seconds of start-up are seconds of every run.
        command.args(["-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC"]).args(words);
        command.args(["-alias", "broker", "-storetype", "PKCS12", "-storepass", STORE_PASSWORD, "-keystore"]);
        let output = command.arg(self.key_store()).output().expect("keytool starts: install a JDK 17 or later");
        assert!(output.status.success(), "keytool {words:?}: {}", String::from_utf8_lossy(&output.stdout));
    }

    fn key_store(&self) -> PathBuf {
        self.dir.join("broker.p12")
    }

    /// The certificate of the authority, in PEM.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The user, as the format of a new directory takes it.
    pub(crate) fn scram(&self) -> String {
        format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]")
    }

    /// Lines of the broker's properties.
    pub(crate) fn settings(&self) -> String {
        let store = self.key_store();
        format!(
            "listener.name.secured.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.secured.scram-sha-512.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             listener.name.secured.ssl.keystore.type=PKCS12\n\
             listener.name.secured.ssl.keystore.location={}\n\
             listener.name.secured.ssl.keystore.password={STORE_PASSWORD}\n",
            store.display()
        )
    }

    /// A file of properties that makes a Java client (`--properties`) come in with this password.
    pub fn client_properties(&self, folder: &Path, password: &str) -> PathBuf {
        let path = folder.join("client.properties");
        let text = format!(
            "security.protocol=SASL_SSL\n\
             sasl.mechanism=SCRAM-SHA-512\n\
             sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
             username=\"{USER}\" password=\"{password}\";\n\
             ssl.truststore.type=PEM\n\
             ssl.truststore.location={}\n",
            self.ca().display()
        );
        std::fs::write(&path, text).expect("the folder can be written");
        path
    }
}
