//! The methods of RFC 7518 and RFC 8037 that tokens can be signed by.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    self as sig, EcdsaSigningAlgorithm, RsaEncoding, VerificationAlgorithm,
};

/// One method.
pub(super) struct Method {
    /// As flag and header have it.
    pub(super) name: &'static str,
    pub(super) family: Family,
}

impl std::fmt::Debug for Method {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name)
    }
}

/// What its keys are.
pub(super) enum Family {
    Hmac(hmac::Algorithm),
    Rsa {
        sign: &'static dyn RsaEncoding,
        verify: &'static dyn VerificationAlgorithm,
    },
    Ec {
        sign: &'static EcdsaSigningAlgorithm,
        verify: &'static dyn VerificationAlgorithm,
        /// The object identifier of the curve.
        curve: &'static str,
    },
    Ed,
}

const fn hmac(name: &'static str, algorithm: hmac::Algorithm) -> Method {
    Method {
        name,
        family: Family::Hmac(algorithm),
    }
}

const fn rsa(
    name: &'static str,
    sign: &'static dyn RsaEncoding,
    verify: &'static dyn VerificationAlgorithm,
) -> Method {
    Method {
        name,
        family: Family::Rsa { sign, verify },
    }
}

const fn ec(
    name: &'static str,
    sign: &'static EcdsaSigningAlgorithm,
    verify: &'static dyn VerificationAlgorithm,
    curve: &'static str,
) -> Method {
    Method {
        name,
        family: Family::Ec {
            sign,
            verify,
            curve,
        },
    }
}

const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const P521: &str = "1.3.132.0.35";

static METHODS: [Method; 13] = [
    rsa(
        "RS256",
        &sig::RSA_PKCS1_SHA256,
        &sig::RSA_PKCS1_2048_8192_SHA256,
    ),
    rsa(
        "RS384",
        &sig::RSA_PKCS1_SHA384,
        &sig::RSA_PKCS1_2048_8192_SHA384,
    ),
    rsa(
        "RS512",
        &sig::RSA_PKCS1_SHA512,
        &sig::RSA_PKCS1_2048_8192_SHA512,
    ),
    rsa(
        "PS256",
        &sig::RSA_PSS_SHA256,
        &sig::RSA_PSS_2048_8192_SHA256,
    ),
    rsa(
        "PS384",
        &sig::RSA_PSS_SHA384,
        &sig::RSA_PSS_2048_8192_SHA384,
    ),
    rsa(
        "PS512",
        &sig::RSA_PSS_SHA512,
        &sig::RSA_PSS_2048_8192_SHA512,
    ),
    ec(
        "ES256",
        &sig::ECDSA_P256_SHA256_FIXED_SIGNING,
        &sig::ECDSA_P256_SHA256_FIXED,
        P256,
    ),
    ec(
        "ES384",
        &sig::ECDSA_P384_SHA384_FIXED_SIGNING,
        &sig::ECDSA_P384_SHA384_FIXED,
        P384,
    ),
    ec(
        "ES512",
        &sig::ECDSA_P521_SHA512_FIXED_SIGNING,
        &sig::ECDSA_P521_SHA512_FIXED,
        P521,
    ),
    hmac("HS256", hmac::HMAC_SHA256),
    hmac("HS384", hmac::HMAC_SHA384),
    hmac("HS512", hmac::HMAC_SHA512),
    Method {
        name: "EdDSA",
        family: Family::Ed,
    },
];

impl Method {
    pub(super) fn named(name: &str) -> Option<&'static Method> {
        METHODS.iter().find(|method| method.name == name)
    }

    #[cfg(test)]
    pub(super) fn all() -> &'static [Method] {
        &METHODS
    }
}
