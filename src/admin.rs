//! `/live`, `/ready` and `/metrics`, on their own addresses: axum routers.
