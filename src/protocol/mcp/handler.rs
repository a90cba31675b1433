//! Answers the requests of MCP through the official SDK: what the server is, its tools, tasks, resources
//! and prompts.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CancelTaskParams, CreateTaskResult, CustomRequest,
        CustomResult, ErrorCode, GetPromptRequestParams, GetPromptResponse, GetTaskParams,
        GetTaskResult, Implementation, ListPromptsResult, ListResourceTemplatesResult,
        ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
        ReadResourceResponse, ServerCapabilities, ServerConfig, Tool, UpdateTaskParams,
    },
    service::RequestContext,
};

use axum::http::request::Parts;
use serde_json::{Map, Value, json};

use super::{
    client::McpClient,
    errors::data,
    place::ToldPlace,
    prompts,
    reply::{self, NextCall, Reply},
    resources, tasks, texts,
    tools::{
        call::ToolCall,
        table::{self, ToolRow},
    },
};
use crate::{
    access::{Principal, Scope},
    protocol::{
        ErrorKind, ServerState,
        caller::Caller,
        jsonrpc::error::Refusal,
        peer::{Connection, Peer},
    },
};

/// Methods whose requests reach the handler as unknown ones if their params have the wrong types.
const KNOWN_METHODS: [&str; 6] = [
    "prompts/get",
    "resources/read",
    "tasks/cancel",
    "tasks/get",
    "tasks/update",
    "tools/call",
];

type McpContext = RequestContext<RoleServer>;

/// Answers the requests of one session; of one request where the client has no session.
#[derive(Debug)]
pub struct McpHandler {
    /// The client without its rights: those are its request's. [`Self::caller`] has both.
    session: Caller,
    place: ToldPlace,
}

impl McpHandler {
    /// The handler of a new session.
    pub fn new(server: Arc<ServerState>) -> Self {
        let principal = Arc::new(Principal::nobody());
        Self {
            session: Caller::new(server, Caller::MCP, principal),
            place: ToldPlace::default(),
        }
    }

    /// The same for a client that tells its place, and whose connection has these rights.
    pub fn at(
        server: Arc<ServerState>,
        place: ToldPlace,
        principal: Arc<Principal>,
        peer: Peer,
    ) -> Self {
        Self {
            session: Caller::new(server, Caller::MCP, principal).at(peer),
            place,
        }
    }

    /// The client of a request that needs these scopes; over HTTP each request has its own rights.
    fn caller(&self, context: &McpContext, scopes: &[Scope]) -> Result<Caller, Refusal> {
        self.caller_of("mcp", context, scopes)
    }

    /// The same for a request that the audit trail calls `action`, if it is refused.
    fn caller_of(
        &self,
        action: &str,
        context: &McpContext,
        scopes: &[Scope],
    ) -> Result<Caller, Refusal> {
        let parts = context.extensions.get::<Parts>();
        let shown = parts.and_then(|parts| parts.extensions.get::<Arc<Principal>>().cloned());
        let principal = shown.unwrap_or_else(|| self.session.principal());
        if !self.session.server.tokens.is_valid(&principal) {
            let message = "the token was revoked or replaced, or has expired";
            return Err(Refusal::new(ErrorKind::Unauthenticated, message));
        }
        let mut caller = self.session.with(principal);
        let connection = parts.and_then(|parts| parts.extensions.get::<Arc<Connection>>());
        if let Some(connection) = connection {
            caller = caller.at(connection.peer);
        }
        match caller.require(scopes) {
            Ok(()) => Ok(caller),
            Err(refusal) => {
                caller.count_refusal(action, &refusal);
                Err(refusal)
            }
        }
    }

    async fn call(&self, tool: &ToolRow, call: ToolCall<'_>) -> CallToolResponse {
        let job = named_job(&call.arguments).cloned();
        let caller = call.caller;
        let reply = AssertUnwindSafe((tool.execute)(call)).catch_unwind().await;
        let reply = reply.unwrap_or_else(|_| {
            let message = "this call failed in the server (a bug; its log says more)";
            Err(Refusal::new(ErrorKind::Internal, message))
        });
        let reply = reply.unwrap_or_else(|refusal| {
            caller.count_refusal(tool.name, &refusal);
            Reply::refused(&refusal, &next(job.as_ref(), &refusal))
        });
        match reply {
            Reply::Text { text, is_error } => reply::result(text, is_error).into(),
            Reply::Task(job) => CallToolResponse::Task(CreateTaskResult::new(tasks::of(&job))),
        }
    }
}

/// The job that the arguments name, or the first one.
fn named_job(arguments: &Map<String, Value>) -> Option<&Value> {
    match arguments.get("job").or_else(|| arguments.get("jobs")) {
        Some(Value::Array(jobs)) => jobs.first(),
        job => job,
    }
}

/// The answer to a call that its client may not make.
fn refused(arguments: &Map<String, Value>, refusal: &Refusal) -> CallToolResponse {
    match Reply::refused(refusal, &next(named_job(arguments), refusal)) {
        Reply::Text { text, is_error } => reply::result(text, is_error).into(),
        Reply::Task(job) => CallToolResponse::Task(CreateTaskResult::new(tasks::of(&job))),
    }
}

/// A call that works and changes nothing, after one that was refused: about the same job if there is one.
fn next(job: Option<&Value>, refusal: &Refusal) -> NextCall {
    let short = |job: &&Value| job.is_number() || job.as_str().is_some_and(|name| name.len() <= 64);
    match job.filter(short) {
        Some(job) if refusal.kind != ErrorKind::NotFound => {
            NextCall::new("read_output", json!({"job": job, "tail_lines": 40}))
        }
        _ => NextCall::new("list_jobs", json!({"limit": 10})),
    }
}

impl ServerHandler for McpHandler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_prompts()
            .enable_tasks()
            .build();
        let version = env!("CARGO_PKG_VERSION");
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("cc-executor", version))
            .with_instructions(texts::INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: McpContext,
    ) -> Result<ListToolsResult, ErrorData> {
        let caller = self.caller(&context, &[]).map_err(data)?;
        let tools = table::listed(&caller.principal().grant);
        Ok(ListToolsResult::with_all_items(tools))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        ToolRow::named(name).map(ToolRow::listed)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = ToolRow::named(&request.name) else {
            let message = format!(
                "there is no tool {:?}; the tools are {}",
                reply::shortened(&request.name),
                ToolRow::names()
            );
            return Err(ErrorData::invalid_params(message, None));
        };
        let takes_tasks = context
            .client_capabilities()
            .is_some_and(|declared| declared.supports_tasks());
        let arguments = request.arguments.unwrap_or_default();
        let judged = async {
            let caller = self.caller_of(tool.name, &context, tool.scopes)?;
            match tool.narrowing.check(&caller, &arguments).await {
                Ok(()) => Ok(caller),
                Err(refusal) => {
                    caller.count_refusal(tool.name, &refusal);
                    Err(refusal)
                }
            }
        };
        let caller = match judged.await {
            Ok(caller) => caller,
            Err(refusal) => return Ok(refused(&arguments, &refusal)),
        };
        let call = ToolCall {
            caller: &caller,
            client: McpClient::of(&context),
            place: self.place.get(),
            arguments,
            context: &context,
            takes_tasks,
        };
        Ok(self.call(tool, call).await)
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let caller = self.caller(&context, &[Scope::Read]).map_err(data)?;
        tasks::get(&caller, &request.task_id, &context).await
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: McpContext,
    ) -> Result<(), ErrorData> {
        let caller = self.caller(&context, &[Scope::Input]).map_err(data)?;
        tasks::update(&caller, &request.task_id, request.input_responses).await
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: McpContext,
    ) -> Result<(), ErrorData> {
        let caller = self.caller(&context, &[Scope::Control]).map_err(data)?;
        tasks::cancel(&caller, &request.task_id).await
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        context: McpContext,
    ) -> Result<ListResourcesResult, ErrorData> {
        let caller = self.caller(&context, &[Scope::Read]).map_err(data)?;
        resources::list(&caller).await
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(resources::templates())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let caller = self.caller(&context, &[Scope::Read]).map_err(data)?;
        let result = resources::read(&caller, &request.uri, &context).await?;
        Ok(ReadResourceResponse::Complete(result))
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(prompts::list())
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let result = prompts::get(&request.name, request.arguments.unwrap_or_default())?;
        Ok(GetPromptResponse::Complete(result))
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let method = request.method.as_str();
        if KNOWN_METHODS.contains(&method) {
            let message = format!("the params of {method} are missing or have the wrong types");
            return Err(ErrorData::invalid_params(message, None));
        }
        let message = reply::shortened(method);
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None))
    }
}
