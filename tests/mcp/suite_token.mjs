// Loaded before the conformance suite: adds the server's token (MCP_TOKEN) to each request, however the
// suite sends it. Everything else about the requests stays as the suite made it.

import http from "node:http";
import { createRequire } from "node:module";

const token = `Bearer ${process.env.MCP_TOKEN}`;

const fetchPlain = globalThis.fetch;
globalThis.fetch = (url, init = {}) => {
  const headers = new Headers(init.headers);
  headers.set("authorization", token);
  return fetchPlain(url, { ...init, headers });
};

const requestPlain = http.request;
http.request = (options, ...rest) =>
  requestPlain({ ...options, headers: { ...options.headers, authorization: token } }, ...rest);

const undici = createRequire(process.argv[1])("undici");
const undiciPlain = undici.request;
undici.request = (url, options = {}) =>
  undiciPlain(url, { ...options, headers: { ...options.headers, authorization: token } });
