// The token follows # in the address: it never reaches a log. It leaves the address once the page has read it.
"use strict";

const token = location.hash.slice(1);
history.replaceState(null, "", location.pathname);
const at = (id) => document.getElementById(id);

async function send(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const read = await answer.json();
  if (!answer.ok) {
    throw new Error(read.detail);
  }
  return read;
}

async function begin() {
  const link = await send("/v1/set-up", { token });
  at("who").textContent = `${link.name} (${link.email})`;
  at("secret").textContent = link.secret;
  at("uri").href = link.uri;
  at("password").hidden = link.log_in !== "password";
  at("form").password.required = link.log_in === "password";
  at("form").hidden = false;
  at("status").textContent = "";
}

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = { token };
  for (const [name, value] of new FormData(at("form"))) {
    if (value) {
      body[name] = value;
    }
  }
  try {
    const { recovery_codes } = await send("/v1/set-up/completion", body);
    at("form").hidden = true;
    at("done").hidden = false;
    at("status").textContent = "Done: you can log in now.";
    for (const code of recovery_codes) {
      at("codes").appendChild(document.createElement("li")).textContent = code;
    }
  } catch (error) {
    at("status").textContent = error.message;
  }
});

begin().catch((error) => {
  at("status").textContent = error.message;
});
