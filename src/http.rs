//! The listener and the recipe that answers a request.
