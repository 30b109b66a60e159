//! Settings of previews: the program that makes them.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use crate::signer::Imgproxy;

/// The program that makes previews, besides clients.
#[derive(Debug, Clone)]
pub enum Previews {
    /// No program: only the previews that clients uploaded are shown.
    Off,
    /// Workers (`valet worker`).
    Worker(PreviewWorker),
    /// An imgproxy server.
    Imgproxy(Box<Imgproxy>),
}

/// Settings of workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PreviewWorker {
    /// The command that converts HEIC and AVIF to JPEG; `None`: workers make no previews of these types.
    pub heif_command: Option<PathBuf>,
}

impl Previews {
    /// Returns the imgproxy server, if it makes the previews.
    #[must_use]
    pub fn imgproxy(&self) -> Option<&Imgproxy> {
        match self {
            Self::Imgproxy(imgproxy) => Some(imgproxy),
            Self::Off | Self::Worker(_) => None,
        }
    }

    /// Returns the settings of workers, if they make the previews.
    #[must_use]
    pub fn worker(&self) -> Option<&PreviewWorker> {
        match self {
            Self::Worker(worker) => Some(worker),
            Self::Off | Self::Imgproxy(_) => None,
        }
    }
}

/// Values of `PREVIEWS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Worker,
    Imgproxy,
    Off,
}

impl Reader<'_> {
    /// Reads the settings of previews. Without `PREVIEWS`, imgproxy makes them if `IMGPROXY_URL` is set.
    pub(super) fn previews(&mut self) -> Previews {
        let (imgproxy, heif_command) = (self.imgproxy(), self.heif_command());
        let has_url = self.is_set("IMGPROXY_URL");
        let default = if has_url { Maker::Imgproxy } else { Maker::Off };
        let maker = self.read_valid("PREVIEWS", default, "worker, imgproxy or off", |text| match text {
            "worker" => Some(Maker::Worker),
            "imgproxy" => Some(Maker::Imgproxy),
            "off" => Some(Maker::Off),
            _ => None,
        });
        self.no_effect_if(maker != Maker::Worker, "PREVIEW_HEIF_COMMAND", "unless PREVIEWS is worker");
        match maker {
            Maker::Imgproxy if !has_url => self.report_invalid("PREVIEWS", "worker or off while IMGPROXY_URL is not set"),
            Maker::Worker | Maker::Off if has_url => self.report_invalid("PREVIEWS", "imgproxy while IMGPROXY_URL is set"),
            Maker::Worker | Maker::Imgproxy | Maker::Off => {}
        }
        match (maker, imgproxy) {
            (Maker::Worker, _) => Previews::Worker(PreviewWorker { heif_command }),
            (Maker::Imgproxy, Some(imgproxy)) => Previews::Imgproxy(Box::new(imgproxy)),
            _ => Previews::Off,
        }
    }

    /// Reads the command's path. The file need not exist on this machine: only workers run it.
    fn heif_command(&mut self) -> Option<PathBuf> {
        self.read_valid("PREVIEW_HEIF_COMMAND", None, "the absolute path of a command, such as /usr/bin/heif-dec", |text| {
            Path::new(text).is_absolute().then(|| Some(text.into()))
        })
    }
}
