// The older name of complete-task.
export { handler } from "../complete-task/handler.ts";
