//! Certificates of the first deployment, made by the `openssl` command as its operators made them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Error;
use crate::member::{fresh_directory, remove};

/// Sections of extensions: authorities, and the three kinds of leaves. None of the leaves may sign
/// digitally, which Go accepts.
const CONFIG: &str = "
[req]
distinguished_name = names
prompt = no
[names]
CN = unused
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,digitalSignature,keyEncipherment,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[intermediate]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,digitalSignature,keyEncipherment,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid,issuer:always
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,keyEncipherment,dataEncipherment
extendedKeyUsage = serverAuth
authorityKeyIdentifier = keyid,issuer:always
subjectAltName = $ENV::E2E_NAMES
[peer]
basicConstraints = critical,CA:FALSE
keyUsage = critical,keyEncipherment,dataEncipherment
extendedKeyUsage = serverAuth,clientAuth
authorityKeyIdentifier = keyid,issuer:always
subjectAltName = $ENV::E2E_NAMES
[user]
basicConstraints = critical,CA:FALSE
keyUsage = critical,keyEncipherment,dataEncipherment
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid,issuer:always
[ca]
default_ca = list
[list]
database = index.txt
crlnumber = crlnumber
default_md = sha256
default_crl_days = 30
";

/// Names of the first deployment's first machine.
const NAMES: &str = "DNS:localhost,DNS:etcd-node01,DNS:etcd-node01.kube.demo,DNS:*.kube.demo,\
                     IP:127.0.0.1,IP:127.0.1.1";
/// What every signature has.
const SIGNED: &str = "-days 30 -sha256 -extfile openssl.cnf";

/// A root and an intermediate authority in a directory, `root.pem`, `ca.pem` and `chain.pem` (both),
/// and whatever they sign.
#[derive(Debug)]
pub struct Pki {
    directory: PathBuf,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pki {
    /// Makes the authorities, in a directory that is removed with them.
    ///
    /// # Errors
    /// `openssl` is not there or refuses.
    pub fn new() -> Result<Pki, Error> {
        let pki = Pki {
            directory: fresh_directory(),
        };
        fs::create_dir_all(&pki.directory)?;
        fs::write(pki.path("openssl.cnf"), CONFIG)?;
        fs::write(pki.path("index.txt"), "")?;
        fs::write(pki.path("crlnumber"), "1000\n")?;
        pki.request("root", "root")?;
        pki.openssl("x509 -req -in root.csr -signkey root-key.pem -extensions root -out root.pem")?;
        pki.request("ca", "ca-etcd")?;
        pki.openssl(
            "x509 -req -in ca.csr -CA root.pem -CAkey root-key.pem -CAcreateserial -extensions \
             intermediate -out ca.pem",
        )?;
        let chain =
            fs::read_to_string(pki.path("ca.pem"))? + &fs::read_to_string(pki.path("root.pem"))?;
        fs::write(pki.path("chain.pem"), chain)?;
        Ok(pki)
    }

    /// A file of the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A leaf of a kind: `server`, `peer` or `user`.
    ///
    /// # Errors
    /// `openssl` refuses.
    pub fn leaf(&self, name: &str, kind: &str) -> Result<Leaf, Error> {
        self.leaf_of(name, kind, NAMES)
    }

    /// A leaf for the given names, in the words of `subjectAltName`.
    ///
    /// # Errors
    /// `openssl` refuses.
    pub fn leaf_of(&self, name: &str, kind: &str, names: &str) -> Result<Leaf, Error> {
        self.request(name, name)?;
        self.sign(name, kind, names)
    }

    /// A leaf of a kind without a common name.
    ///
    /// # Errors
    /// `openssl` refuses.
    pub fn nameless(&self, name: &str, kind: &str) -> Result<Leaf, Error> {
        self.request_as(name, "/O=Kubernetes, Labs")?;
        self.sign(name, kind, NAMES)
    }

    fn sign(&self, name: &str, kind: &str, names: &str) -> Result<Leaf, Error> {
        let words = format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -extensions \
             {kind} -out {name}.pem {SIGNED}"
        );
        let mut command = self.command();
        command
            .args(words.split_whitespace())
            .env("E2E_NAMES", names);
        command.finish()?;
        Ok(Leaf {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}-key.pem")),
        })
    }

    /// Writes `crl.der`, the list of all leaves that were revoked, with one more if one is named.
    ///
    /// # Errors
    /// `openssl` refuses.
    pub fn revoke(&self, name: Option<&str>) -> Result<PathBuf, Error> {
        let authority = "ca -config openssl.cnf -keyfile ca-key.pem -cert ca.pem";
        if let Some(name) = name {
            self.run(&format!("{authority} -revoke {name}.pem"))?;
        }
        self.run(&format!("{authority} -gencrl -out crl.pem"))?;
        self.run("crl -in crl.pem -outform DER -out crl.new")?;
        fs::rename(self.path("crl.new"), self.path("crl.der"))?;
        Ok(self.path("crl.der"))
    }

    fn request(&self, name: &str, common_name: &str) -> Result<(), Error> {
        let subject = format!("/C=BR/ST=SP/L=Campinas/O=Kubernetes, Labs/OU=Labs/CN={common_name}");
        self.request_as(name, &subject)
    }

    fn request_as(&self, name: &str, subject: &str) -> Result<(), Error> {
        self.run(&format!("genrsa -out {name}-key.pem 2048"))?;
        self.command()
            .args(["req", "-new", "-config", "openssl.cnf", "-key"])
            .arg(format!("{name}-key.pem"))
            .args(["-subj", subject, "-out"])
            .arg(format!("{name}.csr"))
            .finish()
    }

    /// A signing command with what all of them have.
    fn openssl(&self, words: &str) -> Result<(), Error> {
        self.run(&format!("{words} {SIGNED}"))
    }

    fn run(&self, words: &str) -> Result<(), Error> {
        self.command().args(words.split_whitespace()).finish()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(&self.directory).env("E2E_NAMES", NAMES);
        command
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

trait Finish {
    fn finish(&mut self) -> Result<(), Error>;
}

impl Finish for Command {
    fn finish(&mut self) -> Result<(), Error> {
        let output = self.stdin(Stdio::null()).output();
        let output = output.map_err(|error| Error(format!("openssl: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(Error(format!("{self:?}: {text}")))
    }
}
