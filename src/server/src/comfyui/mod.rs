//! What the ComfyUI front and the ComfyUI upstream share: workflows in API form and the frames of the WebSocket.

pub(crate) mod frames;
pub(crate) mod graph;

/// Name in [`Native`](crate::request::Native) parameters of the workflow.
pub(crate) const WORKFLOW: &str = "prompt";
/// Name in [`Native`](crate::request::Native) parameters of the list of the names that the workflow's `LoadImage` nodes
/// use for the request's source pictures, in their order.
pub(crate) const UPLOADS: &str = "images";
/// Nodes that give a picture out: ComfyUI `nodes.py`, `SaveImage` and `PreviewImage`.
pub(crate) const OUTPUTS: [&str; 2] = ["SaveImage", "PreviewImage"];
/// Nodes whose `image` names an uploaded file: ComfyUI `nodes.py`, `LoadImage` and `LoadImageMask`.
pub(crate) const LOADERS: [&str; 2] = ["LoadImage", "LoadImageMask"];
