//! Kafka's jars, the TLS stores and a formatted log directory: made once, then found in the target folder.

use super::process;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

pub const STORE_PASSWORD: &str = "store-secret";

/// Users of the SASL listeners. `WRITER` may do everything, `RESTRICTED` what its access control list says.
pub const WRITER: (&str, &str) = ("writer", "writer-s3cret");
pub const RESTRICTED: (&str, &str) = ("restricted", "restricted-s3cret");

/// The target folder of this build.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// Why no broker can be started here; None where one can.
pub fn missing() -> Option<String> {
    static MISSING: LazyLock<Option<String>> = LazyLock::new(|| {
        let absent = |program: &str, argument: &str| {
            let output = process::output(Command::new(program).arg(argument));
            !output.is_ok_and(|output| output.status.success())
        };
        [("java", "-version"), ("mvn", "-version")]
            .into_iter()
            .find(|(program, argument)| absent(program, argument))
            .map(|(program, _)| format!("{program} is not installed; the tests need Java 17 and Maven"))
    });
    MISSING.clone()
}

/// A class path with Apache Kafka, as `tests/kafka/pom.xml` names it.
pub fn class_path() -> &'static str {
    static CLASS_PATH: LazyLock<String> = LazyLock::new(|| {
        let jars = once("kafka-jars", |folder| {
            let pom = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/pom.xml");
            let out = format!("-DoutputDirectory={}", folder.display());
            let mut maven = Command::new("mvn");
            run(maven.args(["-q", "-B", "-f", pom, "dependency:copy-dependencies", &out]));
        });
        format!("{}/*", jars.display())
    });
    &CLASS_PATH
}

/// The PEM file of the authority that signed the broker's certificate.
pub fn ca() -> PathBuf {
    stores().join("ca.pem")
}

/// The PEM file of an authority that signed nothing.
pub fn wrong_ca() -> PathBuf {
    stores().join("wrong-ca.pem")
}

/// The password of the file that [`client_key`] names.
pub const KEY_PASSWORD: &str = "key-s3cret";

/// The subject of [`client_certificate`], which is the client's principal.
pub const CLIENT: &str = "CN=inlet";

/// The PEM file of a client's certificate, signed by [`ca`].
pub fn client_certificate() -> PathBuf {
    client_stores().join("client.pem")
}

/// The PEM file of its key, encrypted.
pub fn client_key() -> PathBuf {
    client_stores().join("client-key.pem")
}

/// The broker's own key and certificate.
pub fn key_store() -> PathBuf {
    stores().join("broker.p12")
}

fn stores() -> PathBuf {
    once("kafka-tls", |folder| {
        for (store, pem) in [("broker.p12", "ca.pem"), ("wrong.p12", "wrong-ca.pem")] {
            let store = folder.join(store);
            let keytool = |arguments: &[&str]| {
                let mut keytool = Command::new("keytool");
                let store =
                    ["-alias", "kafka", "-storepass", STORE_PASSWORD, "-keystore", store.to_str().unwrap()];
                run(keytool.args(arguments).args(store));
            };
            // it signs itself, so it is the authority and the broker's certificate in one
            keytool(&[
                "-genkeypair",
                "-keyalg",
                "EC",
                "-groupname",
                "secp256r1",
                "-storetype",
                "PKCS12",
                "-validity",
                "3650",
                "-dname",
                "CN=localhost",
                "-ext",
                "bc:c=ca:true",
                "-ext",
                "san=ip:127.0.0.1,dns:localhost",
            ]);
            keytool(&["-exportcert", "-rfc", "-file", folder.join(pem).to_str().unwrap()]);
        }
    })
}

/// By openssl: keytool does not write keys as PEM.
fn client_stores() -> PathBuf {
    let (authority, authority_store) = (ca(), key_store());
    once("kafka-tls-client", |folder| {
        let openssl = |command: &str| {
            let command = command
                .replace("AUTHORITY_STORE", authority_store.to_str().unwrap())
                .replace("AUTHORITY", authority.to_str().unwrap());
            run(Command::new("openssl").args(command.split_whitespace()).current_dir(folder));
        };
        openssl(&format!(
            "pkcs12 -in AUTHORITY_STORE -passin pass:{STORE_PASSWORD} -nocerts -nodes -out authority-key.pem"
        ));
        openssl(&format!(
            "req -newkey rsa:2048 -keyout client-key.pem -passout pass:{KEY_PASSWORD} -subj /{CLIENT} -out client.csr"
        ));
        openssl(
            "x509 -req -in client.csr -CA AUTHORITY -CAkey authority-key.pem -CAserial serial -CAcreateserial \
             -days 3650 -out client.pem",
        );
    })
}

/// A log directory as `StorageTool format` leaves it, to be copied. It holds no address.
pub fn formatted() -> PathBuf {
    once("kafka-formatted", |folder| {
        let properties = folder.join("format.properties");
        let text = "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:1\n\
            listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1\ncontroller.listener.names=CONTROLLER\n";
        fs::write(&properties, format!("{text}log.dirs={}\n", folder.join("log").display())).unwrap();
        let mut format = java("kafka.tools.StorageTool");
        format.args(["format", "-t", "c2VydmljZS10ZXN0cy0wMQ", "-c", properties.to_str().unwrap()]);
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            for (name, password) in [WRITER, RESTRICTED] {
                format.args(["--add-scram", &format!("{mechanism}=[name={name},password={password}]")]);
            }
        }
        run(&mut format);
    })
    .join("log")
}

/// A JVM that starts fast and stays small.
pub fn java(main_class: &str) -> Command {
    let mut java = Command::new("java");
    java.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"])
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .args(["-cp", class_path(), main_class]);
    java
}

/// The folder `name` of the target folder, made at most once, also where test runs meet.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let made = target().join(name);
    let lock = File::create(target().join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !made.exists() {
        let unfinished = target().join(format!("{name}.unfinished"));
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir_all(&unfinished).unwrap();
        make(&unfinished);
        fs::rename(&unfinished, &made).unwrap();
    }
    made
}

fn run(command: &mut Command) {
    let Output { status, stdout, stderr } = process::output(command).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(status.success(), "{command:?} failed\n{}\n{}", text(&stdout), text(&stderr));
}
