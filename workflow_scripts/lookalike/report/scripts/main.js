// Progressive enhancement: the report is readable without it.
import { startBoard } from "./board.js";
import { startExplorer } from "./explorer.js";
import { startNeeds } from "./needs.js";
import { startAppendix } from "./parts.js";
import { startCards } from "./useit.js";

startNeeds();
startBoard();
startCards();
startAppendix();
startExplorer().catch((error) => console.warn("The explorer did not start:", error));
