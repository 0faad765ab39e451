//! The gateway over HTTP on loopback: scripted models, scripted upstreams, real sockets.

#![allow(clippy::unwrap_used, clippy::panic)]

mod a1111;
mod a1111_server;
mod a1111_upstream;
mod admin;
mod administered;
mod builtin;
mod clients;
mod comfyui;
mod comfyui_server;
mod comfyui_upstream;
mod door;
mod drain;
mod drawing;
mod guardrail;
mod isolation;
mod judge_api;
mod judging_clients;
mod leaks;
mod limits;
mod moderations;
mod openai;
mod openai_upstream;
mod quotas;
mod sdcpp;
mod sessions;
mod shared;
mod signing;
mod support;
mod tls;
