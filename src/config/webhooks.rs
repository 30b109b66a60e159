//! Settings of webhooks: the secret from which the endpoints' secrets are derived, and private networks to which deliveries may
//! connect.

use ipnet::IpNet;
use secrecy::SecretString;

use super::reader::Reader;

/// Settings of webhooks.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// `WEBHOOK_SECRET`: the secrets of the endpoints are derived from it.
    pub secret: SecretString,
    /// `WEBHOOK_ALLOW`: private networks to which deliveries may connect.
    pub allow: Vec<IpNet>,
}

impl Reader<'_> {
    /// Reads the settings of webhooks; `None` without a secret.
    pub(super) fn webhooks(&mut self) -> Option<Webhooks> {
        let listed = self.list("WEBHOOK_ALLOW");
        let allow: Vec<IpNet> =
            listed.iter().filter_map(|item| item.parse().ok()).filter(|network: &IpNet| *network == network.trunc()).collect();
        if allow.len() < listed.len() {
            self.report_invalid(
                "WEBHOOK_ALLOW",
                "a list of networks such as 10.0.0.0/8, fd00::/8, without bits behind the prefix",
            );
        }
        let Some(secret) = self.text("WEBHOOK_SECRET") else {
            if !listed.is_empty() {
                self.report_invalid("WEBHOOK_ALLOW", "omitted while WEBHOOK_SECRET is not set: it has no effect");
            }
            return None;
        };
        self.check_strength("WEBHOOK_SECRET", &secret, "forging webhooks");
        Some(Webhooks { secret: secret.into(), allow })
    }
}
