//! Views of the upper layers of an image, while lower ones still arrive: for those whose answer no lower layer
//! can change.
//!
//! A view of them is like any other, over a tree that says where it does not know
//! ([`ResolveError::Below`](crate::pack::ResolveError)). It is given for one request, is in no table, and nothing
//! that is made of it is remembered: if a lower layer turns out to be broken, the next request hears of it.

use super::flight::Early;
use super::lasts::Lasts;
use super::policy::Policy;
use super::prepare::Upper;
use super::{Ask, ImageError, Images, Inner, View};
use crate::reference::Reference;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;

/// Where nobody listens.
pub(super) fn unheard() -> Early<Arc<Upper>> {
    Early::new(watch::Sender::new(None))
}

impl Images {
    /// As [`Images::get`]; or, while lower layers still arrive, a view of the upper ones, as soon as
    /// `suffices` says that it gives the answer that the whole image would give.
    ///
    /// # Errors
    /// As [`Images::get`].
    pub async fn get_early(
        &self,
        reference: &Reference,
        ask: Ask,
        suffices: impl Fn(&View) -> bool,
    ) -> Result<View, ImageError> {
        if let Some(view) = self.warm(reference) {
            return Ok(view);
        }
        let early = unheard();
        let mut news = early.subscribe();
        let mut whole = pin!(self.unless_draining(self.0.get(reference, ask, &early)));
        loop {
            let upper = tokio::select! {
                biased;
                outcome = &mut whole => return outcome,
                Ok(()) = news.changed() => news.borrow_and_update().clone(),
            };
            let Some(upper) = upper else { continue };
            let view = tokio::select! {
                biased;
                outcome = &mut whole => return outcome,
                view = self.0.upper_view(reference, &upper) => view,
            };
            if let Some(view) = view.filter(|view| suffices(view)) {
                self.finish(reference, ask);
                return Ok(view);
            }
        }
    }

    /// What who was answered early would have waited for is still done: the image is noted in the catalogue,
    /// its view remembered.
    fn finish(&self, reference: &Reference, ask: Ask) {
        let (inner, asked) = (self.0.clone(), reference.clone());
        let rest = || async move { inner.get(&asked, ask, &unheard()).await.map(drop) };
        self.0.rest.start(reference.clone(), rest);
    }
}

impl Inner {
    /// None: there can be none, or what says how the image is served may lie in a lower layer.
    async fn upper_view(&self, reference: &Reference, upper: &Upper) -> Option<View> {
        let policy: &Policy = self.policies.of(&reference.repository)?;
        let base = self.preparer.upper_files(upper).await?;
        let image = &upper.image;
        let rules = self.preparer.upper_rules(reference, image, policy, &base);
        let (rules, lasts) = (rules.await?, Lasts::ended());
        let lasts = lasts.of(self.image_use(reference, image));
        let info = policy.info(reference, image.digest, &image.config, rules, lasts);
        Some(View {
            info: Arc::new(info),
            base,
            modified: None,
        })
    }
}
