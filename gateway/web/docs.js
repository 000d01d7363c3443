// A link inside the button that opens an operation cannot be told from it by a screen reader; the address follows
// what is opened all the same.
const plainNames = (system) => ({
  components: { DeepLink: ({ text }) => system.React.createElement("span", null, text) },
});

// There is one server, this one, and its list has no label.
const noServers = () => ({ wrapComponents: { ServersContainer: () => () => null } });

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

// The description stands beside this page, wherever a proxy has put both.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#description",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  plugins: [plainNames, noServers],
  // The validator is a service on the internet.
  validatorUrl: null,
});
