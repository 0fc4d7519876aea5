//! Keys, certificates, tokens, and the kubeconfigs made of them.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

use crate::cache::hex;
use crate::site::{API_CLUSTER_IP, NODE_IP, Site};

/// Who may do what from the start. The cluster's own programs have `system:` names, so that a reader of the audit log
/// tells them from everybody else by the name alone.
const USERS: [(&str, &str, &str); 7] = [
    ("admin", "admin", "system:masters"),
    ("kube-controller-manager", "system:kube-controller-manager", "system:masters"),
    ("kube-scheduler", "system:kube-scheduler", ""),
    ("kubelet", "system:node:{NAME}", "system:nodes"),
    ("kube-proxy", "system:kube-proxy", ""),
    ("metallb", "system:local-cluster:metallb", "system:masters"),
    ("kwok", "system:local-cluster:kwok", "system:masters"),
];

/// Writes everything the programs need to trust each other.
pub(crate) fn write(site: &Site) -> Result<()> {
    let ca_key = KeyPair::generate()?;
    let ca = ca_params().self_signed(&ca_key)?;
    secret(&site.pki("ca.key"), &ca_key.serialize_pem())?;
    secret(&site.pki("ca.crt"), &ca.pem())?;
    let issuer = Issuer::new(ca_params(), ca_key);

    let mut server = CertificateParams::new(vec![
        "localhost".to_owned(),
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        site.name.clone(),
    ])?;
    for ip in ["127.0.0.1", NODE_IP, API_CLUSTER_IP] {
        server.subject_alt_names.push(SanType::IpAddress(ip.parse::<IpAddr>()?));
    }
    server.distinguished_name = name("kube-apiserver", &[]);
    issue(&issuer, server, ExtendedKeyUsagePurpose::ServerAuth, &site.pki("server"))?;
    let mut kubelet_client = CertificateParams::default();
    kubelet_client.distinguished_name = name("kube-apiserver", &[]);
    issue(&issuer, kubelet_client, ExtendedKeyUsagePurpose::ClientAuth, &site.pki("kubelet-client"))?;

    let accounts = KeyPair::generate()?;
    secret(&site.pki("service-accounts.key"), &accounts.serialize_pem())?;
    secret(&site.pki("service-accounts.pub"), &accounts.public_key_pem())?;

    let mut tokens = String::new();
    for (n, (file, user, group)) in USERS.iter().enumerate() {
        let token = random_token()?;
        let user = user.replace("{NAME}", &site.name);
        let _ = writeln!(tokens, "{token},{user},{n},\"{group}\"");
        let credentials = format!("token: {token}");
        secret(&site.inner_kubeconfig(file), &kubeconfig(site, &site.inner_url(), &credentials))?;
        if *file == "admin" {
            let path = site.kubeconfig();
            secret(&path.display().to_string(), &kubeconfig(site, &site.outer_url(), &credentials))?;
        }
    }
    secret(&site.pki("tokens.csv"), &tokens)
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A kubeconfig that makes its holder `user` in `groups`: by a client certificate, signed when first asked for.
pub(crate) fn user_kubeconfig(site: &Site, user: &str, groups: &[&str]) -> Result<PathBuf> {
    ensure!(
        groups.len() <= 2,
        "at most two groups for '{user}': a subject of rcgen holds an attribute once, which gives two spellings of O"
    );
    // One file per user and set of groups: the same call gives the same path, another one does not disturb it.
    let wanted: Vec<&[u8]> = std::iter::once(user).chain(groups.iter().copied()).map(str::as_bytes).collect();
    let readable: String =
        user.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
    let stem = site.dir.join("users").join(format!("{readable}-{}", crate::cache::key(&wanted)));
    let stem = stem.display().to_string();
    let path = format!("{stem}.kubeconfig");
    // written last, and never again: others may be reading it, and the files it names
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if Path::new(&path).exists() {
        return Ok(path.into());
    }
    let ca_key = KeyPair::from_pem(&fs::read_to_string(site.pki("ca.key"))?)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name(user, groups);
    issue(&Issuer::new(ca_params(), ca_key), params, ExtendedKeyUsagePurpose::ClientAuth, &stem)?;
    let credentials = format!("client-certificate: {stem}.crt, client-key: {stem}.key");
    secret(&path, &kubeconfig(site, &site.outer_url(), &credentials))?;
    Ok(path.into())
}

fn kubeconfig(site: &Site, server: &str, credentials: &str) -> String {
    let name = &site.name;
    let ca = site.pki("ca.crt");
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters: [{{name: {name}, cluster: {{server: \"{server}\", certificate-authority: {ca}}}}}]\n\
         users: [{{name: user, user: {{{credentials}}}}}]\n\
         contexts: [{{name: {name}, context: {{cluster: {name}, user: user}}}}]\n\
         current-context: {name}\n"
    )
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("local-cluster", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Kubernetes reads the user from CN and the groups from every O.
fn name(common: &str, groups: &[&str]) -> DistinguishedName {
    const ORGANIZATION: [u64; 4] = [2, 5, 4, 10];
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    for (n, group) in groups.iter().enumerate() {
        let kind =
            if n == 0 { DnType::OrganizationName } else { DnType::CustomDnType(ORGANIZATION.to_vec()) };
        name.push(kind, *group);
    }
    name
}

fn issue(
    issuer: &Issuer<'_, KeyPair>,
    mut params: CertificateParams,
    purpose: ExtendedKeyUsagePurpose,
    stem: &str,
) -> Result<()> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    secret(&format!("{stem}.key"), &key.serialize_pem())?;
    secret(&format!("{stem}.crt"), &certificate.pem())
}

/// The API server listens where every user of the machine can reach it: tokens are not to be guessed.
fn random_token() -> Result<String> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut bytes).ok().context("no random numbers from the system")?;
    Ok(hex(&bytes))
}

fn secret(path: &str, text: &str) -> Result<()> {
    let path = Path::new(path);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
