//! The self-managed CA: what it is, how it is made and read, and what others are told of it. How the replicas agree on
//! one is in [`secret`](super::secret).

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::BASE64;
use external_ip_core::names;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::parse_x509_certificate;

use crate::constants::{AUTHORITY_LIFE, CLOCK_SKEW};

pub use super::bundle::{BundleOutcome, ensure_ca_bundle};

/// Key of the CA certificates in our ConfigMaps.
pub const CONFIG_MAP_KEY: &str = "ca.crt";

/// A CA that signs leafs, and everything clients shall trust.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Place of the signing certificate.
    signer: usize,
    certificates: Vec<CertificateDer<'static>>,
    bundle: String,
    not_after: i64,
}

/// Why a CA cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// No certificate, or not PEM.
    #[error("tls.crt holds no readable certificate ({0})")]
    Certificate(String),
    /// No key, or not PEM.
    #[error("tls.key holds no readable private key ({0})")]
    Key(String),
    /// A pair that is none.
    #[error("tls.key belongs to none of the certificates in tls.crt")]
    Mismatch,
    /// A leaf.
    #[error("the certificate in tls.crt that belongs to tls.key is not a CA's")]
    NotAuthority,
    /// Too old.
    #[error("the CA certificate expired {0} days ago")]
    Expired(i64),
    /// Certificates could not be made.
    #[error("making a certificate failed: {0}")]
    Generate(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Generate(error.to_string())
    }
}

impl Authority {
    /// A new CA of ECDSA P-256, good from `now` (seconds since 1970) for ten years.
    pub fn generate(now: i64) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        set_life(&mut params, now, now.saturating_add(seconds(AUTHORITY_LIFE)));
        // each CA has a name of its own, so that nobody takes two for one while they overlap
        let name = format!("{} {}", names::CONTROLLER_NAME, names::short_hash(key.public_key_raw(), 8));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?;
        Self::parse(&certificate.pem(), &key.serialize_pem(), now)
    }

    /// Reads a CA: PEM certificates, of which one belongs to the PEM key, the others are trusted besides (the former
    /// or the next CA). `now` is seconds since 1970.
    pub fn parse(certificates: &str, key: &str, now: i64) -> Result<Self, AuthorityError> {
        let pair = KeyPair::from_pem(key).map_err(|e| AuthorityError::Key(e.to_string()))?;
        let found = read_certificates(certificates).map_err(AuthorityError::Certificate)?;
        let mut signer = None;
        for (index, der) in found.iter().enumerate() {
            let (_, x509) =
                parse_x509_certificate(der).map_err(|e| AuthorityError::Certificate(e.to_string()))?;
            if *x509.public_key().subject_public_key.data == *pair.public_key_raw() {
                signer = Some((index, x509.is_ca(), x509.validity().not_after.timestamp()));
            }
        }
        let (index, is_ca, not_after) = signer.ok_or(AuthorityError::Mismatch)?;
        if !is_ca {
            return Err(AuthorityError::NotAuthority);
        }
        if not_after <= now {
            return Err(AuthorityError::Expired((now - not_after) / (24 * 3600)));
        }
        let issuer = Issuer::from_ca_cert_der(&found[index], pair)?;
        let bundle = found.iter().map(|der| certificate_pem(der)).collect();
        Ok(Self { issuer, signer: index, certificates: found, bundle, not_after })
    }

    /// The same CA, where `more` is trusted besides.
    #[must_use]
    pub(super) fn trusting(mut self, more: Vec<CertificateDer<'static>>) -> Self {
        for certificate in more {
            if !self.certificates.contains(&certificate) {
                self.bundle.push_str(&certificate_pem(&certificate));
                self.certificates.push(certificate);
            }
        }
        self
    }

    /// All certificates clients shall trust, PEM.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// The same, one by one.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// When the signing certificate ends, seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Whether `other` signs and trusts the same.
    pub fn is(&self, other: &Self) -> bool {
        self.certificates == other.certificates && self.signs_as(other)
    }

    /// Whether leafs of `other` are as good as its own.
    pub(super) fn signs_as(&self, other: &Self) -> bool {
        self.signer() == other.signer()
    }

    /// The signing certificate.
    pub(super) fn signer(&self) -> &CertificateDer<'static> {
        &self.certificates[self.signer]
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// The private key, PEM: for the Secret and for nothing else.
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// Data of the ConfigMap [`names::CA_CONFIG_MAP`]: the CA for those who cannot ask the server they are about to trust.
pub fn config_map_data(bundle: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(CONFIG_MAP_KEY.to_owned(), bundle.to_owned())])
}

pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Good from a little before `now` until `until`, both seconds since 1970.
pub(super) fn set_life(params: &mut CertificateParams, now: i64, until: i64) {
    let after_1970 = |at: i64| Duration::from_secs(u64::try_from(at).unwrap_or(0));
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + after_1970(now - seconds(CLOCK_SKEW));
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + after_1970(until);
}

/// At least one certificate, from PEM.
pub(super) fn read_certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|e| e.to_string())?;
    if found.is_empty() { Err("it has no BEGIN CERTIFICATE".to_owned()) } else { Ok(found) }
}

pub(super) fn certificate_pem(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn parts(authority: &Authority) -> (String, String) {
        (authority.bundle().to_owned(), authority.key_pem())
    }

    #[test]
    fn a_ca_survives_the_way_through_pem() {
        let made = Authority::generate(NOW).unwrap();
        let (certificates, key) = parts(&made);
        let read = Authority::parse(&certificates, &key, NOW).unwrap();
        assert!(made.is(&read));
        assert_eq!(read.not_after(), NOW + seconds(AUTHORITY_LIFE));
        assert_eq!(read.bundle(), certificates, "the bundle is what was written");
    }

    #[test]
    fn a_bundle_may_hold_other_certificates_before_and_after_the_signing_one() {
        let [old, new, next] = [(); 3].map(|()| Authority::generate(NOW).unwrap());
        let bundle = format!("{}{}{}", old.bundle(), new.bundle(), next.bundle());
        let read = Authority::parse(&bundle, &new.key_pem(), NOW).unwrap();
        assert_eq!(read.certificates().len(), 3);
        assert_eq!(read.bundle(), bundle);
        assert!(!read.is(&new), "same key, more to trust");
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let (one, other) = (Authority::generate(NOW).unwrap(), Authority::generate(NOW).unwrap());
        let (certificate, key) = parts(&one);
        let error = |c: &str, k: &str, now| Authority::parse(c, k, now).unwrap_err();
        assert!(matches!(error("nonsense", &key, NOW), AuthorityError::Certificate(_)));
        assert!(matches!(error(&certificate, "nonsense", NOW), AuthorityError::Key(_)));
        assert_eq!(error(&certificate, &other.key_pem(), NOW), AuthorityError::Mismatch);
        let late = one.not_after() + 3 * 24 * 3600;
        assert_eq!(error(&certificate, &key, late), AuthorityError::Expired(3));
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&leaf_key).unwrap();
        let of_leaf = error(&leaf.pem(), &leaf_key.serialize_pem(), NOW);
        assert_eq!(of_leaf, AuthorityError::NotAuthority);
    }
}
