// A link followed from elsewhere comes without the strict cookie: ask again from here.
const open = await (await fetch("dashboard/session")).json();
if (open.open) location.reload();

document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("dashboard/login", { method: "POST", body: new URLSearchParams(new FormData(event.target)) });
  if (answer.ok) location.reload();
  else document.getElementById("wrong").textContent = (await answer.json()).error.message;
});
