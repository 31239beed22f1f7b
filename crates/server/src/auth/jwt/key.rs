//! Files to keys: PEM, and in it whichever form a kind of key comes in.

use std::path::Path;

use api::{Code, Status};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey, RsaEncoding,
    VerificationAlgorithm,
};
use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::method::{Family, Method};
use super::options::{Error, Options};
use super::verify_only;

const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";
const ED25519_ID: &str = "1.3.101.112";
/// Shorter ones are refused (RFC 7518, 3.3).
const RSA_BITS_MIN: usize = 2048;

/// The keys of one reading.
pub(super) enum Keys {
    /// One key for both.
    Secret {
        key: Box<hmac::Key>,
        bytes: Box<[u8]>,
    },
    Pair {
        /// Absent on a member that can only verify.
        signer: Option<Signer>,
        verifier: ParsedPublicKey,
        /// The public key as its kind writes it.
        public: Vec<u8>,
    },
}

/// A private key.
pub(super) enum Signer {
    Rsa(rsa::KeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Keys {
    /// # Errors
    /// A file that cannot be read, or does not hold a key of the method; keys that are no pair;
    /// none at all.
    pub(super) fn read(options: &Options) -> Result<Keys, Error> {
        let read = |path: &Option<_>| path.as_deref().map(read).transpose();
        let public = read(&options.public)?;
        let private = read(&options.private)?;
        let private = private.filter(|bytes| !bytes.is_empty());
        let public = public.filter(|bytes| !bytes.is_empty());
        let verify: &'static dyn VerificationAlgorithm = match &options.method.family {
            Family::Hmac(algorithm) => {
                let bytes = private.ok_or(Error::Missing)?.into_boxed_slice();
                let key = Box::new(hmac::Key::new(*algorithm, &bytes));
                return Ok(Keys::Secret { key, bytes });
            }
            Family::Rsa { verify, .. } | Family::Ec { verify, .. } => *verify,
            Family::Ed => &ED25519,
        };
        let signer = private.map(|text| Signer::parse(options.method, &text));
        let signer = signer.transpose()?;
        let given = public.map(|text| public_key(options.method, &text));
        let public = match (&signer, given.transpose()?) {
            (None, None) => return Err(Error::Missing),
            (None, Some(public)) => public,
            (Some(signer), None) => signer.public(),
            (Some(signer), Some(public)) if signer.public() == public => public,
            (Some(_), Some(_)) => return Err(Error::Mismatch),
        };
        let verifier = ParsedPublicKey::new(verify, &public).map_err(|_| bad_rsa("public"))?;
        Ok(Keys::Pair {
            signer,
            verifier,
            public,
        })
    }

    /// The signature over `data`.
    ///
    /// # Errors
    /// What the client is told: there is no key to sign with.
    pub(super) fn sign(&self, data: &[u8]) -> Result<Vec<u8>, Status> {
        match self {
            Keys::Secret { key, .. } => Ok(hmac::sign(key, data).as_ref().to_vec()),
            Keys::Pair { signer: None, .. } => Err(verify_only()),
            Keys::Pair {
                signer: Some(signer),
                ..
            } => signer
                .sign(data)
                .ok_or_else(|| Status::new(Code::Unknown, "auth: the token cannot be signed")),
        }
    }

    /// None when the signature is another's.
    pub(super) fn verify(&self, data: &[u8], signature: &[u8]) -> Option<()> {
        match self {
            Keys::Secret { key, .. } => hmac::verify(key, data, signature).ok(),
            Keys::Pair { verifier, .. } => verifier.verify_sig(data, signature).ok(),
        }
    }

    /// Whether these are the same keys, for the same purpose.
    pub(super) fn are(&self, other: &Keys) -> bool {
        match (self, other) {
            (Keys::Secret { bytes, .. }, Keys::Secret { bytes: others, .. }) => bytes == others,
            (
                Keys::Pair { signer, public, .. },
                Keys::Pair {
                    signer: other_signer,
                    public: other_public,
                    ..
                },
            ) => public == other_public && signer.is_some() == other_signer.is_some(),
            _ => false,
        }
    }
}

impl Signer {
    fn parse(method: &Method, text: &[u8]) -> Result<Signer, Error> {
        let der = der(text)?;
        let form = Form::of(&der).ok_or_else(|| bad("private"))?;
        match &method.family {
            Family::Rsa { sign, .. } => {
                let pair = match form {
                    Form::Pkcs1 => rsa::KeyPair::from_der(&der),
                    Form::Pkcs8(id) if id == RSA => rsa::KeyPair::from_pkcs8(&der),
                    form => return Err(form.unfit("RSA")),
                };
                let pair = pair.map_err(|_| bad_rsa("private"))?;
                Ok(Signer::Rsa(pair, *sign))
            }
            Family::Ec { sign, .. } => match form {
                Form::Pkcs8(id) if id != EC => Err(Form::Pkcs8(id).unfit("ECDSA")),
                Form::Pkcs1 => Err(form.unfit("ECDSA")),
                // What is of another curve is refused here too.
                Form::Sec1 | Form::Pkcs8(_) => EcdsaKeyPair::from_private_key_der(sign, &der)
                    .map(Signer::Ec)
                    .map_err(|_| Error::Content("key is invalid".into())),
            },
            Family::Ed => match form {
                Form::Pkcs8(id) if id == ED25519_ID => Ed25519KeyPair::from_pkcs8(&der)
                    .map(Signer::Ed)
                    .map_err(|_| bad("private")),
                form => Err(form.unfit("Ed25519")),
            },
            Family::Hmac(_) => Err(Error::Missing),
        }
    }

    fn public(&self) -> Vec<u8> {
        match self {
            Signer::Rsa(pair, _) => pair.public_key().as_ref().to_vec(),
            Signer::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Signer::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// None when the library refuses, which it has no reason to with keys that it took.
    fn sign(&self, data: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Signer::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*padding, &random, data, &mut signature).ok()?;
                Some(signature)
            }
            Signer::Ec(pair) => Some(pair.sign(&random, data).ok()?.as_ref().to_vec()),
            Signer::Ed(pair) => Some(pair.sign(data).as_ref().to_vec()),
        }
    }
}

/// How a private key is written.
enum Form {
    /// RFC 8017, RSA.
    Pkcs1,
    /// RFC 5915, elliptic curves.
    Sec1,
    /// RFC 5208, of the algorithm with this identifier.
    Pkcs8(String),
}

impl Form {
    /// All three are sequences that begin with a version; what follows tells.
    fn of(der: &[u8]) -> Option<Form> {
        let (_, whole) = Any::from_der(der).ok()?;
        let (rest, _version) = Any::from_der(whole.data).ok()?;
        let (_, second) = Any::from_der(rest).ok()?;
        match second.header.tag() {
            Tag::Integer => Some(Form::Pkcs1),
            Tag::OctetString => Some(Form::Sec1),
            Tag::Sequence => {
                let (_, id) = Any::from_der(second.data).ok()?;
                Some(Form::Pkcs8(id.oid().ok()?.to_id_string()))
            }
            _ => None,
        }
    }

    /// What Go says of a key of this form where one of another kind is wanted.
    fn unfit(&self, kind: &str) -> Error {
        let other = match self {
            Form::Pkcs8(_) => {
                return Error::Content(format!("key is not a valid {kind} private key"));
            }
            Form::Pkcs1 => "ParsePKCS1PrivateKey",
            Form::Sec1 => "ParseECPrivateKey",
        };
        Error::Content(format!(
            "x509: failed to parse private key (use {other} instead for this key format)"
        ))
    }
}

/// The public key in a file: by itself, in a certificate, or as RSA's own form.
fn public_key(method: &Method, text: &[u8]) -> Result<Vec<u8>, Error> {
    let der = der(text)?;
    let (kind, id, curve) = match &method.family {
        Family::Rsa { .. } => ("RSA", RSA, None),
        Family::Ec { curve, .. } => ("ECDSA", EC, Some(*curve)),
        Family::Ed => ("Ed25519", ED25519_ID, None),
        Family::Hmac(_) => return Err(Error::Missing),
    };
    let unfit = || Error::Content(format!("key is not a valid {kind} public key"));
    let certificate;
    let info = match SubjectPublicKeyInfo::from_der(&der) {
        Ok((_, info)) => info,
        // Of this kind Go takes keys alone.
        Err(_) if kind == "Ed25519" => return Err(bad("public")),
        Err(_) => match X509Certificate::from_der(&der) {
            Ok((_, found)) => {
                certificate = found;
                certificate.public_key().clone()
            }
            Err(_) if kind == "RSA" => return Ok(der),
            Err(_) => return Err(bad("public")),
        },
    };
    if info.algorithm.algorithm.to_id_string() != id {
        return Err(unfit());
    }
    if let Some(curve) = curve {
        let named = info.algorithm.parameters.as_ref();
        let named = named.and_then(|any| any.as_oid().ok());
        if named.is_none_or(|named| named.to_id_string() != curve) {
            return Err(Error::Content("key is invalid".into()));
        }
    }
    Ok(info.subject_public_key.data.to_vec())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        // As Go tells it.
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        Error::Options(format!("open {}: {why}", path.display()))
    })
}

/// What the first block of a PEM file holds, whatever it is called.
fn der(text: &[u8]) -> Result<Vec<u8>, Error> {
    let first = Pem::iter_from_buffer(text).next();
    match first {
        Some(Ok(block)) => Ok(block.contents),
        _ => Err(Error::Content(
            "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key".into(),
        )),
    }
}

fn bad(which: &str) -> Error {
    Error::Content(format!("x509: malformed {which} key"))
}

fn bad_rsa(which: &str) -> Error {
    Error::Content(format!(
        "crypto/rsa: malformed {which} key, or one of fewer than {RSA_BITS_MIN} bits"
    ))
}
