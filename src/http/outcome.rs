//! An answer on its way out of the recipe: what it is, and the fields that it gets for that.

use super::body::Body;
use super::fields;
use super::lead::How;
use super::path::FilePath;
use crate::images::ViewInfo;
use http::{HeaderMap, Response, StatusCode};

/// An answer, and what the fields that it still gets depend on.
pub(super) struct Outcome {
    pub(super) response: Response<Body>,
    /// How a file came to be the answer, if one is.
    pub(super) how: Option<How>,
    /// The file is as the image has it: no replacement of the configuration, nor InlineVars, has a part in it.
    pub(super) as_pushed: bool,
    /// A browser is sent to another URL for it.
    pub(super) elsewhere: bool,
}

impl From<Response<Body>> for Outcome {
    fn from(response: Response<Body>) -> Outcome {
        Outcome {
            response,
            how: None,
            as_pushed: true,
            elsewhere: false,
        }
    }
}

impl Outcome {
    /// The answer with what the image says of it and then what the configuration says. `path`: what was asked for.
    pub(super) fn complete(
        self,
        info: &ViewInfo,
        path: Option<&FilePath>,
        headers: &HeaderMap,
    ) -> Response<Body> {
        let (mut response, how) = (self.response, self.how);
        // An error's text is no file: what describes files is not for it.
        let status = response.status();
        let is_file = status.is_success() || status == StatusCode::NOT_MODIFIED;
        let itself = is_file && matches!(how, Some(How::Asked | How::Rewritten));
        let is_page = how == Some(How::NotFound) || (is_file && how.is_some());
        if let (Some(rules), Some(path)) = (&info.rules.headers, path)
            && is_page
        {
            let file = fields::File {
                asked: itself,
                as_pushed: self.as_pushed,
            };
            fields::of_image(&mut response, rules, &path.rooted(), file);
        }
        fields::of_configuration(&mut response, &info.site, headers, itself);
        response
    }
}
