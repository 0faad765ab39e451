//! The gateway over HTTP on loopback: scripted models, scripted upstreams, real sockets.

#![allow(clippy::unwrap_used, clippy::panic)]

mod a1111;
mod a1111_server;
mod a1111_upstream;
mod builtin;
mod comfyui;
mod comfyui_server;
mod comfyui_upstream;
mod door;
mod guardrail;
mod judge_api;
mod judging_clients;
mod leaks;
mod moderations;
mod sdcpp;
mod support;
mod tls;
mod drain;
mod drawing;
mod limits;
mod openai;
mod openai_upstream;
