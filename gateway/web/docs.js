// The description stands beside this page, wherever a proxy has put both.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#description",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // The validator is a service on the internet.
  validatorUrl: null,
});
